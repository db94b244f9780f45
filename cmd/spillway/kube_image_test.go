package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway/internal/oci/ocitest"
)

// elfFile writes a program for Linux that a dynamic linker loads, unless that is "".
func elfFile(t *testing.T, machine elf.Machine, linker string) string {
	t.Helper()
	var b bytes.Buffer
	head := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(head.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}))
	part := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: 120}
	if linker != "" {
		part = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 120, Filesz: uint64(len(linker))}
	}
	for _, v := range []any{head, part, []byte(linker), make([]byte, 256)} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, b.Bytes(), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKubeImage_HoldsTheProgram(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	registry, program := ocitest.Serve(t)+"/shop", elfFile(t, elf.EM_AARCH64, "")
	push := func() string {
		got := invoke(t.Context(), stateDir(t), "kube", "image", "--registry", registry, "--program", program)
		if got.code != exitDone {
			t.Fatal(got.stderr)
		}
		return strings.TrimSpace(got.stdout)
	}
	name := push()
	if !strings.HasPrefix(name, registry+"/spillway-server@sha256:") {
		t.Errorf("it is named %s", name)
	}
	if again := push(); again != name {
		t.Errorf("the same program is %s, and then %s", name, again)
	}
	image := ocitest.Pull(t, name)
	if got := image.Config; !slices.Equal(got.Entrypoint, []string{"/app/spillway"}) || got.User != "65532:65532" {
		t.Errorf("it starts %q as %q", got.Entrypoint, got.User)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if file := image.Files["app/spillway"]; !bytes.Equal(file.Body, text) || file.Mode.Perm() != 0o755 {
		t.Errorf("the program has %d bytes and mode %v", len(file.Body), file.Mode)
	}
}

func TestKubeImage_SaysWhyThereIsNone(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("\xcf\xfa\xed\xfe of another system"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"--registry HOST/PATH"}},
		{[]string{"--registry", "shop", "--program", elfFile(t, elf.EM_X86_64, "")}, []string{`"shop" is no place for images`}},
		{[]string{"--registry", "registry.test/shop", "--program", script}, []string{"Linux", "--program FILE"}},
		{[]string{"--registry", "registry.test/shop", "--program", elfFile(t, elf.EM_X86_64, "/lib64/ld-linux-x86-64.so.2\x00")}, []string{"not static", "CGO_ENABLED=0", "--program FILE"}},
		{[]string{"--registry", "registry.test/shop", "--program", filepath.Join(t.TempDir(), "none")}, []string{"none"}},
	} {
		got := invoke(t.Context(), stateDir(t), append([]string{"kube", "image"}, row.args...)...)
		if got.code != exitUsage || got.stdout != "" {
			t.Errorf("%q: exit code %d\n%s", row.args, got.code, got.stdout)
		}
		for _, text := range row.want {
			if !strings.Contains(got.stderr, text) {
				t.Errorf("%q does not say %q:\n%s", row.args, text, got.stderr)
			}
		}
		t.Log(got.stderr)
	}
}
