package main

import (
	"errors"
	"fmt"
	"go/ast"
	gobuild "go/build"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// task is a task of a plugin, as a custom section describes it.
type task struct {
	ABI      int      `json:"abi"`
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Doc      string   `json:"doc,omitempty"`
	Input    string   `json:"input,omitempty"`
	Output   string   `json:"output,omitempty"`
	State    string   `json:"state,omitempty"`
	Calls    []string `json:"calls,omitempty"`
	hasState bool
	position token.Position
}

// kinds has the kind of task that each function registers.
var kinds = map[string]string{
	"Map": "map", "MapWith": "map", "Generator": "generator", "GeneratorWith": "generator", "Sink": "sink", "SinkWith": "sink",
}

var taskName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

// source is the package of a folder.
type source struct {
	files     *token.FileSet
	functions map[string]*ast.FuncDecl
	tasks     []task
	faults    []error
}

// findTasks returns the tasks that the package of a folder registers.
func findTasks(folder string) ([]task, error) {
	context := gobuild.Default
	context.GOOS, context.GOARCH, context.CgoEnabled = "wasip1", "wasm", false
	found, err := context.ImportDir(folder, 0)
	if err != nil {
		return nil, fmt.Errorf("no plugin can be built of %s: %w", folder, err)
	}
	if found.Name != "main" {
		return nil, fmt.Errorf("%s: a plugin is a package main, and this is package %s", folder, found.Name)
	}
	s := source{files: token.NewFileSet(), functions: map[string]*ast.FuncDecl{}}
	var parsed []*ast.File
	for _, name := range found.GoFiles {
		file, err := parser.ParseFile(s.files, filepath.Join(folder, name), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, file)
		for _, declared := range file.Decls {
			if function, ok := declared.(*ast.FuncDecl); ok {
				s.functions[nameOf(function)] = function
			}
		}
	}
	for _, file := range parsed {
		if sdk := importName(file); sdk != "" {
			ast.Inspect(file, func(node ast.Node) bool {
				s.visit(sdk, node)
				return true
			})
		}
	}
	if len(s.tasks) == 0 && len(s.faults) == 0 {
		return nil, fmt.Errorf("%s registers no task: call pcluster.Map(\"name\", function) in main", folder)
	}
	return s.tasks, errors.Join(s.faults...)
}

// importName returns the name by which a file imports the SDK. It is empty if it does not.
func importName(file *ast.File) string {
	for _, each := range file.Imports {
		if each.Path.Value == `"pcluster"` {
			if each.Name != nil {
				return each.Name.Name
			}
			return "pcluster"
		}
	}
	return ""
}

// visit adds the task that a call registers.
func (s *source) visit(sdk string, node ast.Node) {
	call, ok := node.(*ast.CallExpr)
	if !ok {
		return
	}
	function := called(sdk, call)
	if kinds[function] == "" || len(call.Args) == 0 {
		return
	}
	position := s.files.Position(call.Pos())
	name, ok := literal(call.Args[0])
	if !ok || !taskName.MatchString(name) {
		s.fault(position, "the name of a task is a literal of letters, digits, `-` and `_`")
		return
	}
	if i := slices.IndexFunc(s.tasks, func(t task) bool { return t.Name == name }); i >= 0 {
		s.fault(position, "there is a task `%s` already, at %s", name, s.tasks[i].position)
		return
	}
	t := task{ABI: 1, Name: name, Kind: kinds[function], hasState: strings.HasSuffix(function, "With"), position: position}
	functions := call.Args[1:]
	if t.hasState && len(functions) > 0 {
		if load := s.functions[types.ExprString(functions[0])]; load != nil {
			t.State = result(load)
		}
		functions = functions[1:]
	}
	if len(functions) > 0 {
		s.describe(&t, functions[0])
	}
	for _, option := range call.Args {
		if calls, ok := option.(*ast.CallExpr); ok && called(sdk, calls) == "Calls" {
			for _, group := range calls.Args {
				text, ok := literal(group)
				if !ok {
					s.fault(s.files.Position(group.Pos()), "what a task calls are literals")
				}
				t.Calls = append(t.Calls, text)
			}
		}
	}
	s.tasks = append(s.tasks, t)
}

func (s *source) fault(position token.Position, format string, arguments ...any) {
	s.faults = append(s.faults, fmt.Errorf("%s: %s", position, fmt.Sprintf(format, arguments...)))
}

// describe sets what the declaration of a task's function tells.
func (s *source) describe(t *task, function ast.Expr) {
	declared := s.functions[strings.NewReplacer("(", "", ")", "", "*", "").Replace(types.ExprString(function))]
	if declared == nil {
		return
	}
	t.Doc = strings.TrimSpace(declared.Doc.Text())
	if parameters := declared.Type.Params.List; len(parameters) > 0 {
		t.Input = types.ExprString(parameters[len(parameters)-1].Type)
	}
	switch t.Kind {
	case "map":
		t.Output = result(declared)
	case "generator":
		sequence := strings.TrimSuffix(result(declared), ", error]")
		t.Output = sequence[strings.Index(sequence, "[")+1:]
	}
}

// called returns the function of the SDK that an expression calls. It is empty if it calls another.
func called(sdk string, call *ast.CallExpr) string {
	function := call.Fun
	switch generic := function.(type) {
	case *ast.IndexExpr:
		function = generic.X
	case *ast.IndexListExpr:
		function = generic.X
	}
	if selected, ok := function.(*ast.SelectorExpr); ok {
		if of, ok := selected.X.(*ast.Ident); ok && of.Name == sdk {
			return selected.Sel.Name
		}
	}
	return ""
}

// literal returns the text of a literal.
func literal(expression ast.Expr) (string, bool) {
	basic, ok := expression.(*ast.BasicLit)
	if !ok || basic.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(basic.Value)
	return text, err == nil
}

// nameOf returns the name of a function, or that of a method as Type.method.
func nameOf(function *ast.FuncDecl) string {
	if function.Recv == nil {
		return function.Name.Name
	}
	return strings.TrimPrefix(types.ExprString(function.Recv.List[0].Type), "*") + "." + function.Name.Name
}

// result returns the first type that a function returns.
func result(function *ast.FuncDecl) string {
	if results := function.Type.Results; results != nil && len(results.List) > 0 {
		return types.ExprString(results.List[0].Type)
	}
	return ""
}
