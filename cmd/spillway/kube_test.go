package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/spillway-dev/spillway/internal/kube"
)

func TestKubeInstall_PrintsWhatItWouldApply(t *testing.T) {
	got := invoke(t.Context(), stateDir(t), "kube", "install", "--print", "--namespace", "shop", "--gateway", "edge/public", "--image", "registry.test/spillway:1", "--prometheus", "http://p:9090", "--registry-secret", "pull")
	if got.code != exitDone {
		t.Fatal(got.stderr)
	}
	for _, part := range []string{
		"name: apps.spillway.dev", "name: releases.spillway.dev", "kind: RoleBinding", "namespace: edge", "kind: PodDisruptionBudget",
		"- --gateway=edge/public", "- --prometheus=http://p:9090", "- --listen=127.0.0.1:7300", "image: registry.test/spillway:1", "immutable: true",
		"- --registry-secret=pull", "imagePullSecrets:", "path: config.json", "name: DOCKER_CONFIG",
	} {
		if !strings.Contains(got.stdout, part) {
			t.Errorf("there is no %q in it", part)
		}
	}
	if strings.Index(got.stdout, "CustomResourceDefinition") > strings.Index(got.stdout, "ServiceAccount") {
		t.Error("the definitions are not the first")
	}
	if strings.Contains(got.stdout, "kind: ClusterRole") {
		t.Error("it has rights in the whole cluster")
	}
}

func TestKubeInstall_RefusesWhatCannotBe(t *testing.T) {
	for _, args := range []string{
		"kube install --print --image x", "kube install --gateway x", "kube install --replicas 0", "kube install extra", "export docker", "export",
	} {
		if got := invoke(t.Context(), stateDir(t), strings.Fields(args)...); got.code != exitUsage {
			t.Errorf("%s: exit code %d\n%s", args, got.code, got.stderr)
		}
	}
}

func TestInstalled_SaysThatAServerOfNoReplicasDoesNotRun(t *testing.T) {
	var said strings.Builder
	c := &cli{stderr: &said}
	if err := c.installed(t.Context(), nil, kube.Server{Namespace: "shop", Image: "registry.test/spillway:1"}, kubeOptions{wait: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "with 0 replicas") || !strings.Contains(said.String(), "spillway kube upgrade --namespace shop --replicas 1") {
		t.Errorf("said %q", &said)
	}
}

func TestKubeInstall_SaysWhichFlagOfAnImageIsOfNoUse(t *testing.T) {
	for args, want := range map[string]string{
		"--image=": "--image names nothing", "--registry registry.test/shop --program=": "--program names nothing",
		"--image registry.test/spillway:1 --program x":             "--image registry.test/spillway:1 is one that there is: leave one of them out",
		"--image registry.test/spillway:1 --server-base golang:1":  "--server-base is of an image that is made",
		"--print --namespace shop --registry r.test/s --program x": "spillway kube image",
	} {
		for _, verb := range []string{"install", "upgrade"} {
			got := invoke(t.Context(), stateDir(t), append([]string{"kube", verb, "--kubeconfig", "/nowhere"}, strings.Fields(args)...)...)
			if got.code != exitUsage || !strings.Contains(got.stderr, want) {
				t.Errorf("%s %s: exit code %d, want %q\n%s", verb, args, got.code, want, got.stderr)
			}
		}
	}
}

func TestMadeAnew_ReplacesAnImageThatCannotRun(t *testing.T) {
	const named, made = "registry.test/spillway:1", "registry.test/shop/spillway-server@sha256:1"
	for _, row := range []struct {
		image, problem, args string
		makes                bool
		says                 string
	}{
		{"", "", "", true, ""},
		{made, "", "", true, ""},
		{named, "", "", false, "keeps the image " + named},
		{named, "its image is not there", "", true, "does not run with the image " + named},
		{named, "", "--program x", true, ""},
		{named, "", "--server-base golang:1", true, ""},
	} {
		var o kubeOptions
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.bind(flags)
		if err := flags.Parse(strings.Fields(row.args)); err != nil {
			t.Fatal(err)
		}
		makes, why := madeAnew(row.image, flags, func() string { return row.problem })
		if makes != row.makes || !strings.Contains(why, row.says) || (why == "") != (row.says == "") {
			t.Errorf("%+v: %v, %q", row, makes, why)
		}
	}
}

func TestKeeping_KeepsWhatNoFlagSays(t *testing.T) {
	before := kube.Server{
		Namespace: "shop", Image: "i:1", Base: "golang:1.26", Replicas: 3, Gateway: kube.Gateway{Namespace: "edge", Name: "public"},
		Flags: []string{"--gateway=edge/public", "--registry=r/shop", "--prometheus=http://p"},
	}
	var o kubeOptions
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.bind(flags)
	if err := flags.Parse([]string{"--image", "i:2", "--registry", "s/shop", "--prometheus", "", "--kubeconfig", "/x"}); err != nil {
		t.Fatal(err)
	}
	got := keeping(flags, kube.Server{Namespace: "shop", Image: o.image, Replicas: o.replicas}, before)
	if want := []string{"--gateway=edge/public", "--registry=s/shop"}; !slices.Equal(got.Flags, want) {
		t.Errorf("flags %q, want %q", got.Flags, want)
	}
	if got.Image != "i:2" || got.Base != "golang:1.26" || got.Replicas != 3 || got.Gateway != before.Gateway {
		t.Errorf("got %+v", got)
	}
}

func TestExport_SaysWhatIsBuilt(t *testing.T) {
	appDir(t, "app: castle\nservices:\n  www: {build: ., run: ./www, host: www.castle.test}\n  db: {image: \"postgres:17\", port: 5432}\n")
	got := invoke(t.Context(), stateDir(t), "export", "kubernetes", "--gateway", "edge/public")
	if got.code != exitDone {
		t.Fatal(got.stderr)
	}
	for _, part := range []string{"image: REGISTRY/castle-www:release-1", "is built by spillway deploy", "image: postgres:17", "not pinned", "kind: HTTPRoute"} {
		if !strings.Contains(got.stdout, part) {
			t.Errorf("there is no %q in\n%s", part, got.stdout)
		}
	}
	if got := invoke(t.Context(), stateDir(t), "export", "kubernetes"); got.code != exitDone || strings.Contains(got.stdout, "HTTPRoute") || !strings.Contains(got.stdout, "name: castle-www\n") {
		t.Errorf("public hosts without a gateway: exit code %d\n%s", got.code, got.stderr)
	}
}

func TestExportApp_IsTheAppFileAsAResource(t *testing.T) {
	file := "# ours\napp: castle\nservices:\n  db: {image: \"postgres:17\", port: 5432, env: {LANGUAGE: \"no\"}}\nenvironments:\n  staging: {}\n"
	appDir(t, file)
	const spec = `spec:
  app: castle
  environments:
    staging: {}
  services:
    db:
      env:
        LANGUAGE: "no"
      image: postgres:17
      port: 5432
`
	for metadata, args := range map[string][]string{
		"  name: castle\n": nil, "  name: castle.staging\n  namespace: shop\n": {"--env", "staging", "--namespace", "shop"},
	} {
		got := invoke(t.Context(), stateDir(t), append([]string{"export", "app"}, args...)...)
		if want := "apiVersion: spillway.dev/v1alpha1\nkind: App\nmetadata:\n" + metadata + spec; got.code != exitDone || got.stderr != "" || got.stdout != want {
			t.Errorf("exit code %d, %s\n%s\nwant\n%s", got.code, got.stderr, got.stdout, want)
		}
	}
	if got := invoke(t.Context(), stateDir(t), "export", "app", "--gateway", "edge/public"); got.code != exitUsage || !strings.Contains(got.stderr, "--gateway is for export kubernetes") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	appDir(t, "app: castle\nservices:\n  www: {build: ., run: ./www}\n")
	if got := invoke(t.Context(), stateDir(t), "export", "app"); got.code != exitDone || !strings.Contains(got.stderr, "service www is built") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

// A flag that is kept may contradict one that is given: the new server would end as soon as it starts.
func TestTogether_FindsWhatAServerWouldNotStartWith(t *testing.T) {
	for args, wrong := range map[string]string{
		"--gateway edge/public":                  "--service-type is about public services without a gateway",
		"--gateway edge/public --service-type=":  "",
		"--registry r.test/shop":                 "",
		"--gateway edge/public --service-type x": "--service-type: ",
	} {
		var o kubeOptions
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.bind(flags)
		if err := flags.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		err := together(serverFlags(flags, []string{"--service-type=NodePort", "--gateway-metrics=http://traefik.edge:9100/metrics,http://10.0.0.1/metrics"}))
		if (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v, want %q", args, err, wrong)
		}
	}
}
