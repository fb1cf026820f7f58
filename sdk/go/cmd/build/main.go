// Command build builds a plugin from a folder with a main package that registers tasks.
//
//	go run pcluster/cmd/build [-o FILE] [FOLDER]
//
// It finds the tasks in the source, adds the exports of the plugin ABI to the package without touching the folder, compiles it
// for wasip1, and describes the tasks in a custom section.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	output := flag.String("o", "", "the plugin to write; by default FOLDER.wasm in the folder")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run pcluster/cmd/build [-o FILE] [FOLDER]")
		flag.PrintDefaults()
	}
	flag.Parse()
	folder := "."
	switch flag.NArg() {
	case 0:
	case 1:
		folder = flag.Arg(0)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err := build(folder, *output); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// build builds the plugin of a folder.
func build(folder, output string) error {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	if output == "" {
		output = filepath.Join(folder, filepath.Base(folder)+".wasm")
	}
	if output, err = filepath.Abs(output); err != nil {
		return err
	}
	found, err := findTasks(folder)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "pcluster-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	compiled := filepath.Join(work, "plugin.wasm")
	if err := compile(folder, work, compiled, found); err != nil {
		return err
	}
	plugin, err := os.ReadFile(compiled)
	if err != nil {
		return err
	}
	return replace(output, append(plugin, describe(found)...))
}

// replace writes a file whole, or not at all.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	beside := fmt.Sprintf("%s.%d", path, os.Getpid())
	err := os.WriteFile(beside, content, 0o666)
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		os.Remove(beside)
	}
	return err
}

// compile compiles the package of a folder, with the exports of its tasks.
func compile(folder, work, compiled string, found []task) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("cannot ask `go env GOROOT`: %w", err)
	}
	added := map[string]string{
		filepath.Join(folder, "zz_pcluster_exports.go"):                              exports(found),
		filepath.Join(strings.TrimSpace(string(root)), "src/runtime/zz_pcluster.go"): runtimePart,
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for path, source := range added {
		kept := filepath.Join(work, filepath.Base(path))
		if err := os.WriteFile(kept, []byte(source), 0o666); err != nil {
			return err
		}
		overlay["Replace"][path] = kept
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	list := filepath.Join(work, "overlay.json")
	if err := os.WriteFile(list, text, 0o666); err != nil {
		return err
	}
	command := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-w", "-overlay", list, "-tags", "pcluster_plugin",
		"-o", compiled, ".")
	command.Dir = folder
	command.Env = environment()
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("the plugin was not built: `go build`: %w", err)
	}
	return nil
}

// environment returns the environment of the compiler: that of this process, but for what would change the result.
func environment() []string {
	kept := []string{"GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOWASM="}
	for _, each := range os.Environ() {
		name, _, _ := strings.Cut(each, "=")
		switch name {
		case "GOOS", "GOARCH", "GOFLAGS", "GOWORK", "CGO_ENABLED", "GOWASM", "GOEXPERIMENT", "GODEBUG":
		default:
			kept = append(kept, each)
		}
	}
	return kept
}

// exports returns the source of the exports of tasks.
func exports(found []task) string {
	var source strings.Builder
	source.WriteString("package main\n\nimport \"pcluster\"\n\n// The host never calls main, which registers the tasks.\n")
	source.WriteString("func init() { main() }\n")
	for i, t := range found {
		fmt.Fprintf(&source, "\n//go:wasmexport pcluster_task:%s\nfunc pclusterTask%d(item, size uint32) int32 { "+
			"return pcluster.RunItem(%q) }\n", t.Name, i, t.Name)
		fmt.Fprintf(&source, "\n//go:wasmexport pcluster_each:%s\nfunc pclusterEach%d() int32 { "+
			"return pcluster.RunItems(%q) }\n", t.Name, i, t.Name)
		if t.hasState {
			fmt.Fprintf(&source, "\n//go:wasmexport pcluster_init:%s\nfunc pclusterInit%d() int32 { "+
				"return pcluster.LoadState(%q) }\n", t.Name, i, t.Name)
		}
	}
	return source.String()
}

// runtimePart is a file of the runtime, which has no such functions. It seeds the generator anew, as when the program starts, and
// stops the timers that an item leaves behind. A plugin has one thread, so that nothing else changes a heap of timers meanwhile.
const runtimePart = `package runtime

import _ "unsafe"

//go:linkname pclusterReseed pcluster.reseedRuntime
func pclusterReseed() {
	lock(&globalRand.lock)
	globalRand.init = false
	unlock(&globalRand.lock)
	randinit()
	mrandinit(getg().m)
}

var pclusterKept []*timer

//go:linkname pclusterKeepTimers pcluster.keepTimers
func pclusterKeepTimers() {
	clear(pclusterKept)
	pclusterKept = pclusterKept[:0]
	pclusterEachTimer(func(t *timer) {
		pclusterKept = append(pclusterKept, t)
	})
}

//go:linkname pclusterStopTimers pcluster.stopTimers
func pclusterStopTimers() {
	pclusterEachTimer(func(t *timer) {
		for _, kept := range pclusterKept {
			if t == kept {
				return
			}
		}
		t.stop()
	})
}

// pclusterEachTimer calls a function with the timers of time.AfterFunc, which alone hold a function.
func pclusterEachTimer(call func(*timer)) {
	for _, pp := range allp {
		if pp == nil {
			continue
		}
		for i := 0; i < len(pp.timers.heap); i++ {
			t := pp.timers.heap[i].timer
			if _, ok := t.arg.(func()); ok && t.when > 0 {
				call(t)
			}
		}
	}
}
`

// describe returns a custom section that describes tasks.
func describe(found []task) []byte {
	var lines []byte
	for _, t := range found {
		// A task has texts alone, which can always be written.
		line, _ := json.Marshal(t)
		lines = append(append(lines, line...), '\n')
	}
	const name = "pcluster"
	content := append(append([]byte{byte(len(name))}, name...), lines...)
	section := []byte{0}
	for size := len(content); ; size >>= 7 {
		if size < 0x80 {
			section = append(section, byte(size))
			break
		}
		section = append(section, byte(size)|0x80)
	}
	return append(section, content...)
}
