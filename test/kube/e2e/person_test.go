//go:build kube

package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/test/kube/image"
)

// person is somebody with a kubeconfig and with contexts of their own, who works with a server in a namespace.
type person struct {
	t         *testing.T
	namespace string
	home      string
}

// newPerson makes one whose namespace has no server yet.
func newPerson(t *testing.T) *person {
	t.Helper()
	return &person{t: t, namespace: namespace(t), home: t.TempDir()}
}

// spillway runs a command, which has to end with the code.
func (p *person) spillway(code int, args ...string) result {
	p.t.Helper()
	return p.run(args...).want(p.t, code)
}

func (p *person) run(args ...string) result {
	p.t.Helper()
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SPILLWAY_") }),
		"KUBECONFIG="+kubeconfig(), "HOME="+p.home, "XDG_CONFIG_HOME="+p.home)
	code, stdout, stderr := e2etest.Run(commandWithin, "/", env, binary, args...)
	return result{args, code, stdout, stderr}
}

// at adds the context that leads to the server to a command.
func (p *person) at(args ...string) []string { return append(args, "--context", "shop") }

// installation is the person's namespace for those helpers that need no server of the test's own.
func (p *person) installation() *installation {
	return &installation{t: p.t, namespace: p.namespace, gateway: gatewayAddress()}
}

// program builds a package of this module, static, and gives the file.
func program(t *testing.T, pkg string) string {
	t.Helper()
	file := t.TempDir() + "/program"
	if err := e2etest.Build(root()+"/test/kube", pkg, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// toolchain puts an image with Go into the registry and gives its name.
func toolchain(t *testing.T) string {
	t.Helper()
	to := registry() + "/tests/go:1"
	if err := image.PushToolchain(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	return to
}
