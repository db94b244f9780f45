package appfile

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spillway-dev/spillway"
)

// Defaults of the keys in this file that the root package does not name.
const (
	defaultKeepWarm      = spillway.Duration(time.Hour)
	defaultTrackReplicas = 1
	defaultSyntheticPath = "/"
	defaultSyntheticRate = 5
)

// edgeKeys are the keys of a service about who reaches which release of it.
func edgeKeys() []key {
	return []key{
		{name: "tls", example: "auto", shape: tlsShape(),
			doc: "The certificate of the public names, which are then served over HTTPS too: auto (from Let's Encrypt, by ACME), or files. Files are read again when they change."},
		{name: "standby", example: "{keep: 1h, host: off.example.com}", shape: standbyShape(),
			doc: "Blue-green: what is kept of the colour that went dark."},
		{name: "tracks", example: "{canary: {replicas: 1, share: 10%}}", shape: tracksShape(),
			doc: "Lanes beside stable, by name, that hold a release of their own or are servers that Spillway does not run."},
		{name: "synthetic", example: "{path: /, rate: 5}", shape: syntheticShape(),
			doc: "Requests that Spillway itself makes while a new release is judged and users make too few. Half of them go to each release; through a gateway of a cluster as many as of all users."},
	}
}

func standbyShape() objectShape {
	return objectShape{name: "a mapping with keep and host", keys: []key{
		{name: "keep", example: "1h", value: defaultKeepWarm.String(), shape: durationShape{0, month}, doc: "How long the dark colour stays warm after the watch."},
		{name: "host", example: "off.example.com", shape: anyShape{hostText(), listShape{hostText()}}, doc: "Public names that always reach the dark colour."},
	}}
}

func tracksShape() dictShape {
	return dictShape{name: "a mapping of tracks", keyName: "a track's name", pattern: labelPattern(30),
		keyHint: "use 1 to 30 lower-case letters, digits and -", problem: reservedTrack, of: trackShape(), example: "{replicas: 1, share: 10%}", min: 1, max: 20}
}

// reservedTrack says that a name has a meaning already.
func reservedTrack(name string) (problem, hint string) {
	if slices.Contains([]string{"stable", "standby", "candidate"}, name) {
		return "is a word of Spillway, not a track's name", "call it canary, beta or legacy"
	}
	return "", ""
}

func trackShape() objectShape {
	return objectShape{name: "a mapping", keys: []key{
		{name: "branch", example: "canary", shape: textShape{name: "a branch", pattern: branchName}, doc: "The branch whose commits are deployed to the track."},
		{name: "replicas", example: "1", value: defaultTrackReplicas, shape: wholeShape{"a number of replicas", 1, 1000}, doc: "How many replicas run the track's release."},
		{name: "share", example: "10%", shape: textShape{name: "a share like 10%, or auto", pattern: shareOrAuto, problem: shareProblem},
			doc: "The share of the users that no rule sends elsewhere, or auto: as many as its replicas are of all."},
		{name: "cookie", example: "_AUSER_TYPE=canary", shape: ruleShape("cookie", cookieRule), doc: "Requests with this cookie always reach the track: NAME=VALUE, or NAME=* for any value."},
		{name: "header", example: "X-Beta=1", shape: ruleShape("header", headerRule), doc: "Requests with this header always reach the track: NAME=VALUE, or NAME=* for any value."},
		{name: "host", example: "canary.example.com", shape: anyShape{hostText(), listShape{hostText()}}, doc: "Public names that always reach the track."},
		{name: "urls", example: `["http://10.0.0.1:8080"]`, shape: listShape{baseURL()}, doc: "Servers that Spillway does not run. The track then has no release."},
	}}
}

func syntheticShape() objectShape {
	return objectShape{name: "a mapping with path and rate", keys: []key{
		{name: "path", example: "/", value: defaultSyntheticPath, shape: anyShape{pathText(), listShape{pathText()}}, doc: "What is asked for by GET, in turn."},
		{name: "rate", example: strconv.Itoa(defaultSyntheticRate), value: defaultSyntheticRate, shape: wholeShape{"a number of requests a second", 1, 100}, doc: "Requests a second."},
	}}
}

// scaleShape is the range that a service may be scaled in.
func scaleShape() objectShape {
	const later = "let cpu or memory choose the size, scale: {min: 2, max: 12, cpu: 60%}, or scale by hand"
	keys := []key{
		{name: "min", example: "2", value: defaultScale, shape: wholeShape{"a number of replicas", 1, 1000}, doc: "The smallest number, with which it begins."},
		{name: "max", example: "12", shape: wholeShape{"a number of replicas", 1, 1000}, doc: "The largest number that it may be scaled to."},
	}
	for _, of := range []string{"cpu", "memory"} {
		keys = append(keys, key{name: of, example: "60%", shape: textShape{name: "a whole share like 60%", pattern: targetShare, problem: tooMuch},
			doc: "The share of limits." + of + " that a replica should use in the mean: an autoscaler chooses the number between min and max by it. For servers on Kubernetes."})
	}
	keys = append(keys, key{name: "tolerance", example: "5%", shape: textShape{name: "a whole share like 5%", pattern: targetShare, problem: tooMuch},
		doc: "How far the use may be off, as a part of cpu and memory, before the size changes; without it 10% on Kubernetes. From Kubernetes 1.35 on."})
	for _, target := range []string{"rps", "inflight", "p95", "query"} {
		keys = append(keys, key{name: target, example: later})
	}
	return objectShape{name: "a mapping with min and max", keys: keys}
}

// absolutePath is a file on the server's machine.
func absolutePath() textShape {
	return textShape{name: "the absolute path of a file", pattern: absolute, problem: func(text string) (string, string) {
		if strings.TrimSpace(text) != "" && !strings.HasPrefix(text, "/") {
			return quote(text) + " is a relative path, and the server has another directory than you", "write the whole path, such as /etc/ssl/shop.pem"
		}
		return "", ""
	}}
}

// shareProblem says what is wrong with the share of a track.
func shareProblem(text string) (problem, hint string) {
	if share, err := spillway.ParseShare(text); err == nil && share == 0 {
		return quote(text) + " gives the track nobody", "leave it out, or write auto"
	}
	return tooMuch(text)
}

// budgetShape is how much harm a rollout may do.
func budgetShape() shape {
	return anyShape{
		wholeShape{"a number of failed requests", 1, 1_000_000_000},
		textShape{name: `a share like "0.1% of users"`, pattern: usersText, problem: func(text string) (string, string) {
			share, _, _ := strings.Cut(text, " ")
			v, err := spillway.ParseShare(share)
			switch {
			case err == nil && share == text:
				return quote(text) + " does not say of what", "write budget: " + text + " of users"
			case err == nil && v == 0:
				return quote(text) + " is no budget at all", "the smallest is 0.01% of users"
			case shareText.MatchString(share) && err != nil:
				return quote(text) + " is more than all", ""
			}
			return "", ""
		}}}
}

// ruleShape is a header or cookie that a request must carry.
func ruleShape(kind string, pattern *regexp.Regexp) shape {
	rule := textShape{name: "a " + kind + " as NAME=VALUE", pattern: pattern, problem: func(text string) (string, string) {
		if name, value, ok := strings.Cut(text, "="); ok && value == "" && name != "" {
			return quote(text) + " has no value", "write " + text + "VALUE, or " + text + "* for any"
		}
		return "", ""
	}}
	return anyShape{rule, listShape{rule}}
}

// baseURL is the address of a server, with a path or without.
func baseURL() textShape {
	return textShape{name: "a URL like http://10.0.0.1:8080", pattern: webURL, problem: func(text string) (string, string) {
		switch u, err := parseURL(text); {
		case err != nil:
			return err.Error(), ""
		case u.RawQuery != "" || u.ForceQuery:
			return quote(text) + " has a query", "remove what begins with ?"
		}
		return "", ""
	}}
}

// parseURL reads a URL of HTTP or HTTPS without a user and without a fragment.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		if inner := (*url.Error)(nil); errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, fmt.Errorf("%s is not a URL: %w", quote(text), err)
	}
	port, err := strconv.Atoi(u.Port())
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.ContainsFunc(text, unicode.IsSpace):
		return nil, fmt.Errorf("%s is not a URL of http or https", quote(text))
	case u.Port() != "" && (err != nil || port < 1 || port > 65535):
		return nil, fmt.Errorf("%s has no port that there is", quote(text))
	case u.User != nil:
		return nil, fmt.Errorf("the URL of %s has a user in it: the app file is no place for a password", quote(u.Host))
	case strings.Contains(text, "#"):
		return nil, fmt.Errorf("%s has a fragment, which servers never see", quote(text))
	}
	return u, nil
}

// buildTracks makes the tracks of a service, sorted by name.
func buildTracks(n *node) []spillway.Track {
	if n == nil {
		return nil
	}
	var tracks []spillway.Track
	for _, e := range n.entries {
		t := spillway.Track{
			Name:   e.name,
			Branch: text(e.child("branch"), ""),
			Host:   texts(e.child("host")),
			URLs:   texts(e.child("urls")),
		}
		if t.URLs == nil {
			t.Replicas = whole(e.child("replicas"), defaultTrackReplicas)
		}
		if share := text(e.child("share"), "0%"); share == "auto" {
			t.Auto = true
		} else {
			t.Share, _ = spillway.ParseShare(share)
		}
		for _, kind := range ruleKinds {
			for _, rule := range texts(e.child(kind)) {
				t.Match = append(t.Match, matchOf(kind, rule))
			}
		}
		tracks = append(tracks, t)
	}
	slices.SortFunc(tracks, func(a, b spillway.Track) int { return strings.Compare(a.Name, b.Name) })
	return tracks
}

// matchOf reads NAME=VALUE.
func matchOf(kind, rule string) spillway.Match {
	name, value, _ := strings.Cut(rule, "=")
	return spillway.Match{KeySource: spillway.KeySource{Kind: kind, Name: name}, Value: value}
}

func buildStandby(n *node) *spillway.Standby {
	if n == nil {
		return nil
	}
	return &spillway.Standby{Keep: duration(n.child("keep"), defaultKeepWarm), Host: texts(n.child("host"))}
}

func buildSynthetic(n *node) *spillway.Synthetic {
	if n == nil {
		return nil
	}
	s := spillway.Synthetic{Path: texts(n.child("path")), Rate: whole(n.child("rate"), defaultSyntheticRate)}
	if s.Path == nil {
		s.Path = []string{defaultSyntheticPath}
	}
	return &s
}
