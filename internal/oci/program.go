package oci

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/spillway-dev/spillway"
)

// program is what a command of a service starts, and what that needs of the base.
type program struct {
	words   []string // nil: the line is for the shell
	line    string   // for the shell
	machine string   // for which it was built, as Go names it; "" = for any, or not known
	wants   []want
}

// want is a file that the base has to have.
type want struct {
	path string // absolute, or a name without / that is looked up in PATH
	why  string // "./www is linked to it: it is not static"
	// remedy is what to do other than to choose another base; "" = nothing.
	remedy string
}

// shell is where the shell has to be.
const shell = "/bin/sh"

// programOf looks at what a command starts. The key is the command's in the app file: "run".
func programOf(s spillway.Service, key string, c spillway.Command, dir string) (program, error) {
	words, problem := s.Words(c)
	if problem != "" {
		if len(c.Exec) > 0 {
			return program{}, fmt.Errorf("%s has %s; write it under env: %w", key, problem, spillway.ErrInvalid)
		}
		return program{line: c.Shell, wants: []want{{shell, key + " has " + problem,
			"write " + key + " as one program with its arguments, such as ./" + s.Name + " --port $PORT"}}}, nil
	}
	p := program{words: words}
	start := plain(words[0])
	switch {
	case start == "":
		return p, nil // a variable: the container will tell
	case !strings.Contains(start, "/"):
		p.wants = []want{{start, key + " starts " + start + " from the PATH", "write where it is in the artefact: ./" + start}}
		return p, nil
	case strings.HasPrefix(start, "/") && !strings.HasPrefix(path.Clean(start), appDir+"/"):
		p.wants = []want{{path.Clean(start), key + " starts it", ""}}
		return p, nil
	}
	if err := p.examine(key, start, dir); err != nil {
		return program{}, err
	}
	return p, nil
}

// plain is a word as the program gets it; "" when a variable is in it.
func plain(word string) string {
	const dollar = "\x00"
	word = strings.ReplaceAll(word, "$$", dollar)
	if strings.Contains(word, "$(") {
		return ""
	}
	return strings.ReplaceAll(word, dollar, "$")
}

// examine reads what kind of program a file of the artefact is.
func (p *program) examine(key, start, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("the artefact cannot be read: %w", err)
	}
	defer root.Close()
	at := behindLinks(root, path.Join(appDir, strings.TrimPrefix(path.Clean(start), appDir+"/")))
	if at != appDir && !strings.HasPrefix(at, appDir+"/") {
		p.wants = append(p.wants, want{at, start + " is a link to it", ""})
		return nil
	}
	file, err := root.Open(path.Join(".", strings.TrimPrefix(at, appDir)))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s starts %s, and the build left no such file; check the name, or what build does: %w", key, start, spillway.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("%s starts %s, which cannot be read: %w", key, start, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s starts %s, which is no program: nobody may execute it; have the build run chmod +x on it: %w", key, start, spillway.ErrInvalid)
	}
	head := make([]byte, 256)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return p.binary(start, file)
	case bytes.HasPrefix(head, []byte("#!")):
		p.script(start, head[2:])
		return nil
	}
	return fmt.Errorf("%s starts %s, which is neither a program for Linux nor a script that begins with #!: %w", key, start, spillway.ErrInvalid)
}

// behindLinks is what a file of the artefact, by its path in the image, is a link to: as python is in a virtual environment
// one to that of the base.
func behindLinks(root *os.Root, at string) string {
	for range 40 {
		name, inside := strings.CutPrefix(at, appDir+"/")
		link, err := root.Readlink(name)
		if !inside || err != nil {
			break
		}
		if !path.IsAbs(link) {
			link = path.Join(path.Dir(at), link)
		}
		at = path.Clean(link)
	}
	return at
}

// machines are the names that Go has for what programs are built for.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x",
	elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_LOONGARCH: "loong64",
}

// binary finds the dynamic linker that a program asks for. A static one has none.
func (p *program) binary(start string, file *os.File) error {
	b, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("%s is a broken program: %w (%w)", start, err, spillway.ErrInvalid)
	}
	p.machine = machines[b.Machine]
	for _, part := range b.Progs {
		if part.Type != elf.PT_INTERP {
			continue
		}
		linker, err := io.ReadAll(io.LimitReader(part.Open(), 4096))
		if err != nil {
			return fmt.Errorf("%s is a broken program: %w (%w)", start, err, spillway.ErrInvalid)
		}
		p.wants = append(p.wants, want{string(bytes.TrimRight(linker, "\x00")), start + " is no static program and is loaded by it",
			"build it static (Go: CGO_ENABLED=0)"})
	}
	return nil
}

// script finds what runs a script: "#!/usr/bin/env python3".
func (p *program) script(start string, head []byte) {
	line, _, _ := bufio.NewReader(bytes.NewReader(append(head, '\n'))).ReadLine()
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return
	}
	p.wants = append(p.wants, want{fields[0], start + " is a script for it", ""})
	if path.Base(fields[0]) == "env" && len(fields) > 1 && !strings.HasPrefix(fields[1], "-") {
		p.wants = append(p.wants, want{fields[1], start + " is a script for it", ""})
	}
}

// Static gives what a program file is built for, as Go names it: "amd64". It is ErrInvalid when the file is no program
// for Linux, or is not static.
func Static(file string) (architecture string, err error) {
	open, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, spillway.ErrInvalid)
	}
	defer open.Close()
	var p program
	if err := p.binary(file, open); err != nil || p.machine == "" {
		return "", fmt.Errorf("%s is no program for Linux: %w", file, spillway.ErrInvalid)
	}
	if len(p.wants) > 0 {
		return "", fmt.Errorf("%s is not static, it is loaded by %s; %s: %w", file, p.wants[0].path, p.wants[0].remedy, spillway.ErrInvalid)
	}
	return p.machine, nil
}
