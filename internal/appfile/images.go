package appfile

import (
	"regexp"
	"strings"
)

// imageRef is the reference of an image, as docker has it: [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]. The grammar is
// that of github.com/distribution/reference.
var imageRef = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*(:[0-9]{1,5})?/)?` +
	`[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$`)

// imageText is an image.
func imageText() textShape {
	return textShape{name: "an image like postgres:17 or registry.example.com/shop/web:1.4", pattern: imageRef, problem: func(text string) (string, string) {
		_, bare, isURL := strings.Cut(text, "://")
		lower := strings.ToLower(text)
		if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, '/') { // a tag may have capitals
			lower = strings.ToLower(text[:i]) + text[i:]
		}
		switch {
		case len(text) > 255:
			return "is longer than 255 characters", ""
		case isURL && imageRef.MatchString(bare):
			return quote(text) + " is a URL, not an image", "write image: " + bare
		case strings.HasSuffix(text, ":") && imageRef.MatchString(text[:len(text)-1]):
			return quote(text) + " ends before its tag", "write image: " + text + "1.4"
		case !imageRef.MatchString(text) && imageRef.MatchString(lower):
			return quote(text) + " has capitals, and names of images have none", "write image: " + lower
		}
		return "", ""
	}}
}

// checkImage reports what the keys of a service say against its image.
func checkImage(r *report, service entry, path string, users string) {
	image, is := find(service.node, "image")
	if !is {
		return
	}
	if build, both := find(service.node, "build"); both {
		r.add(&node{place: build.key}, path+".build", "the service is an image already, and an image is not built", "remove build, or image")
	}
	if has(service.node, "port") {
		return
	}
	at, hint := &node{place: image.key}, "write port: 8080, the port at which the program in the image listens"
	if health := service.child("health"); health != nil && (health.kind == aText || has(health, "path")) {
		r.add(at, path+".port", "is missing: health asks the program at its port", hint)
	} else if users != "" {
		r.add(at, path+".port", "is missing: "+users, hint)
	}
}

// connecting says for each service who connects to it, in words; nobody where it has no entry.
func connecting(root, services *node) map[string]string {
	users := map[string]string{}
	for _, e := range services.entries {
		for _, need := range texts(e.child("needs")) {
			if users[need] == "" && need != e.name {
				users[need] = e.name + " needs " + need
			}
		}
	}
	targets := func(n *node) {
		for _, item := range listed(n) {
			if item.kind == aMapping {
				item = item.child("to")
			}
			if item != nil && item.kind == aText {
				service, _, _ := strings.Cut(item.text, "@")
				users[service] = "routes lead to " + service
			}
		}
	}
	for _, rule := range listed(root.child("routes")) {
		targets(rule.child("to"))
		targets(rule.child("mirror"))
	}
	for _, e := range services.entries {
		for _, key := range [...]string{"listen", "host"} {
			if has(e.node, key) {
				users[e.name] = "users reach " + e.name + " by its " + key
			}
		}
	}
	return users
}
