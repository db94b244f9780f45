//go:build kube

package oci_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/oci"
	"github.com/spillway-dev/spillway/internal/oci/ocitest"
)

// debian runs docker's own registry, as Debian packs it, until the test ends.
func debian(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatal("docker-registry is not installed; apt-get install docker-registry")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, address)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(program, "serve", file)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(15 * time.Second); ; {
		if resp, err := http.Get("http://" + address + "/v2/"); err == nil {
			resp.Body.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker-registry does not answer: %s", said.String())
		}
		<-time.After(50 * time.Millisecond)
	}
}

func TestDebian_TakesAndGivesWhatTheTestsInMemoryDo(t *testing.T) {
	host := debian(t)
	r := open(t, oci.Config{Repository: host + "/shop/test"})
	a := artefact(t, "sha256:a", tree())
	got, err := r.Push(t.Context(), "castle", service("www", "./www"), a)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := open(t, oci.Config{Repository: newHouse(t).host + "/shop/test"}).Push(t.Context(), "castle", service("www", "./www"), a)
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(memory.Image, "@")
	if !strings.HasSuffix(got.Image, want) {
		t.Errorf("got %s, and elsewhere the digest was %s", got.Image, want)
	}
	if again, err := r.Push(t.Context(), "castle", service("www", "./www"), a); err != nil || again != got {
		t.Errorf("again: %+v, %v", again, err)
	}
	image := ocitest.Pull(t, got.Image)
	if string(image.Files["app/page.html"].Body) != "hello" || image.Config.User != "65532:65532" {
		t.Errorf("got %+v", image)
	}
	// Layers of a base in another repository of the same registry are mounted, not sent.
	upon := open(t, oci.Config{Repository: host + "/other", Base: got.Image})
	second, err := upon.Push(t.Context(), "castle", service("www", "./www"), a)
	if err != nil {
		t.Fatal(err)
	}
	if image := ocitest.Pull(t, second.Image); len(image.Files) == 0 {
		t.Error("the image upon a base has no files")
	}
	if err := r.Exists(t.Context(), host+"/shop/test/castle-none:1"); err == nil || !strings.Contains(err.Error(), "no such image") {
		t.Errorf("an image that is not there: %v", err)
	}
}
