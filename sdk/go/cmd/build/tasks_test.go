package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write writes files into a folder of its own.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

const program = `package main

import sdk "pcluster"

// greet greets a person.
// In words.
func greet(cx *sdk.Context, person Person) (Greeting, error) { panic("") }

func count(cx *sdk.Context, to int) iter.Seq2[map[string]int, error] { panic("") }

func load(cx *sdk.Context) (*Model, error) { panic("") }

// label labels a word.
func (m *Model) label(cx *sdk.Context, word string) (string, error) { panic("") }

func main() {
	sdk.Map("greet", greet, sdk.Calls("http", "kv"))
	sdk.Generator[int]("count", count)
	sdk.MapWith("label", load, (*Model).label)
	sdk.Sink("end", func(*sdk.Context, any) error { return nil })
	other.Map("no-task")
}
`

func TestFindTasks(t *testing.T) {
	found, err := findTasks(write(t, map[string]string{
		"main.go": program, "other.go": "package main\n", "main_test.go": `package main; import "pcluster"; func f() { pcluster.Map("test") }`,
		"native.go": "//go:build linux\npackage main\nimport \"pcluster\"\nfunc g() { pcluster.Map(\"native\") }",
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"abi":1,"name":"greet","kind":"map","doc":"greet greets a person.\nIn words.","input":"Person","output":"Greeting","calls":["http","kv"]}
{"abi":1,"name":"count","kind":"generator","input":"int","output":"map[string]int"}
{"abi":1,"name":"label","kind":"map","doc":"label labels a word.","input":"string","output":"string","state":"*Model"}
{"abi":1,"name":"end","kind":"sink"}
`
	section := string(describe(found))
	if got := section[strings.Index(section, "{"):]; got != want {
		t.Errorf("the tasks are\n%s", got)
	}
	if !strings.Contains(exports(found), "//go:wasmexport pcluster_init:label\n") || strings.Contains(exports(found), "init:greet") {
		t.Errorf("the exports are\n%s", exports(found))
	}
}

func TestMistakes(t *testing.T) {
	for _, each := range []struct{ source, want string }{
		{"package other\n", "a plugin is a package main, and this is package other"},
		{"package main\n", "registers no task: call pcluster.Map(\"name\", function) in main"},
		{"package main\nimport \"pcluster\"\nfunc main() {\n\tpcluster.Map(name, f)\n}\n", "main.go:4:2: the name of a task is a literal"},
		{"package main\nimport \"pcluster\"\nfunc main() { pcluster.Map(\"a b\", f) }\n", "main.go:3:15: the name of a task is a literal"},
		{"package main\nimport \"pcluster\"\nfunc main() { pcluster.Map(\"a\", f); pcluster.Sink(\"a\", f) }\n", "there is a task `a` already, at "},
		{"package main\nfunc main() {\n", "main.go:2:15: expected"},
	} {
		_, err := findTasks(write(t, map[string]string{"main.go": each.source}))
		if err == nil || !strings.Contains(err.Error(), each.want) {
			t.Errorf("%q: %v", each.source, err)
		}
	}
	if _, err := findTasks(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no buildable Go source files") {
		t.Errorf("an empty folder: %v", err)
	}
}
