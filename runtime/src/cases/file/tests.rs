use super::*;
use crate::cases::case::{Expect, Given};
use crate::chain::manifest::Manifest;
use crate::dead::FailureKind;
use crate::frame::cbor;
use crate::frame::json::to_json;
use crate::name::{Digest, Topic};
use crate::run::call::Answer;

/// Returns a chain of three tasks and a program.
fn chain() -> Chain {
    let digest = Digest::of(b"plugin");
    let text = format!(
        "name = \"shop\"\nversion = \"1\"\n[[stage]]\nname = \"parse\"\nplugin = \"{digest}\"\n[[stage]]\nname = \"sum\"\n\
         plugin = \"{digest}\"\n[[stage]]\nname = \"price\"\nplugin = \"{digest}\"\n[[stage]]\nname = \"ocr\"\nexec = [\"ocr\"]\n"
    );
    Chain::new(&Manifest::from_toml(&text).expect("a manifest")).expect("a chain")
}

/// Reads a text as a file of the chain above.
pub(in crate::cases) fn read_text_of(text: &str, path: &Path, must: Must) -> (Vec<Case>, Vec<Diagnostic>) {
    let (read, mistakes) = parse::cases(text, path, &chain(), must);
    (read.into_iter().map(|read| read.case).collect(), mistakes)
}

fn cases(text: &str) -> Vec<Case> {
    let (read, mistakes) = parse::cases(text, Path::new("cases/a.toml"), &chain(), Must::Expect);
    assert_eq!(mistakes, [], "{text}");
    read.into_iter().map(|read| read.case).collect()
}

/// Returns each mistake with its line.
fn mistakes(text: &str) -> Vec<String> {
    let (_, mut mistakes) = parse::cases(text, Path::new("cases/a.toml"), &chain(), Must::Expect);
    mistakes.sort_by_key(|mistake| mistake.span.start);
    let source = Source::new("", text);
    mistakes.iter().map(|mistake| format!("{}: {}", source.place(mistake.span.start).line, mistake.text())).collect()
}

fn json(items: &[bytes::Bytes]) -> Vec<String> {
    items.iter().map(|item| to_json(&cbor::value(item).expect("an item"))).collect()
}

#[test]
fn a_case_has_all_that_its_file_says() {
    let cases = cases(
        r#"
[[case]]
name = "all"
items = [{ id = 1, lines = [2, 3] }, "text", { json = '{"a":null}' }]
topic = "eu"
unordered = true
tolerance = 1e-9
config.sum.rate = 0.2

[[case.calls]]
stage = "parse"
http = "get https://api.example.com"
answer = { status = 404, body = "3.50", headers = { ETag = ["a", "b"] } }

[[case.calls]]
stage = "parse"
kv.get = "cache/key"
failure = { kind = "unavailable" }

[[case.programs]]
stage = "ocr"
item = { page = 1 }
outputs = [{ text = "hello" }]

[[case.programs]]
stage = "ocr"
failure = { kind = "transient", reason = "no page" }

[case.expect]
results = '''
{"id": 1}

18446744073709551616
'''
stage.parse = [{ id = 1 }]
[[case.expect.dead]]
stage = "sum"
reason = "negative"
attempts = 3

[[case]]
name = "brief"
items = [1]
expect.results = []
"#,
    );
    let [all, brief] = cases.as_slice() else { panic!("two cases: {cases:?}") };
    assert_eq!(json(&all.items), [r#"{"id":1,"lines":[2,3]}"#, r#""text""#, r#"{"a":null}"#]);
    assert_eq!((all.line, brief.position, all.topic.as_ref().map(Topic::as_str)), (2, 1, Some("eu")));
    assert_eq!(
        all.config.iter().map(|(stage, config)| format!("{stage} {config}")).collect::<Vec<_>>(),
        [r#"sum {"rate":0.2}"#]
    );
    let [http, kv] = all.calls.as_slice() else { panic!("two calls") };
    assert_eq!((http.call.as_str(), http.target.as_str(), http.line), ("http", "GET https://api.example.com/", 10));
    let Answer::Response(response) = &http.answer else { panic!("a response") };
    let shown = to_json(&cbor::value(response).expect("CBOR"));
    assert_eq!(
        shown,
        r#"{"status":404,"body":"My41MA==","headers":[["etag","YQ=="],["etag","Yg=="]],"url":"https://api.example.com/"}"#
    );
    assert_eq!((kv.call.as_str(), kv.target.as_str()), ("kv.get", "cache/key"));
    assert!(matches!(&kv.answer, Answer::Failure(failure) if to_json(&cbor::value(failure).expect("CBOR"))
        == r#"{"kind":"unavailable","message":"the case says so","transient":true}"#));
    assert!(all.programs[0].item.is_some() && all.programs[1].item.is_none());
    let failure = Given::Failure { kind: FailureKind::Error, reason: "no page".to_owned(), is_transient: true };
    assert_eq!(all.programs[1].gives, failure);
    let Expect { results, stages, dead, unordered, tolerance } = &all.expect;
    assert_eq!(json(results.as_deref().expect("results")), [r#"{"id":1}"#, "18446744073709551616"]);
    assert_eq!((stages.len(), *unordered, *tolerance), (1, true, 1e-9));
    let dead = &dead.as_ref().expect("dead letters")[0];
    assert_eq!((dead.reason.as_deref(), dead.attempts, dead.kind), (Some("negative"), Some(3), None));
    assert_eq!(brief.expect.results, Some(Vec::new()));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let found = mistakes(
        r#"
[[case]]
nmae = "a"
items = [1, { cbor = "zz" }]
tolerance = -1
config.smu = 1
[[case.calls]]
stage = "parse"
htpt = "GET https://a"
[[case.calls]]
stage = "ocr"
http = "https://a"
answer = {}
[[case.calls]]
stage = "sum"
kv.gte = "a/b"
answer = {}
[[case.calls]]
stage = "sum"
kv.get = "a/b"
answer = { valu = "x" }
[[case.programs]]
stage = "sum"
outputs = []
failure = { kind = "transient" }
[case.expect]
results = { a = 1 }
stage.prase = []
[[case.expect.dead]]
kind = "erorr"
attempts = 0

[[case]]
name = "empty"
items = []

[[case]]
items = [1]
expect.results = []
[[case.calls]]
stage = "sum"
answer = {}
"#,
    );
    let expected = [
        "3: unknown key `nmae`; did you mean `name`?",
        "4: not hexadecimal; write pairs of the digits 0 to 9 and a to f",
        "5: `tolerance` is not a number that is finite and not negative; write `tolerance = 1e-9`",
        "6: the chain `shop` has no stage `smu`; did you mean `sum`?",
        "9: unknown key `htpt`; did you mean `http`?",
        "11: stage `ocr` runs a program, which makes no calls; `[[case.programs]]` stands in for it",
        "12: `https://a` is nothing that `http` is made to; write `http = \"GET https://api.example.com/price/1\"`",
        "16: no task can call `kv.gte`; did you mean `kv.get`?",
        "21: unknown key `valu`; did you mean `value`?",
        "23: stage `sum` runs a task, which runs here as on a node; only programs are stood in for",
        "25: the program gives `outputs` and a `failure`; write one of them",
        "27: `results` is not a list, nor a text with an item of JSON on each line; write `results = [{ id = 1 }]`",
        "28: the chain `shop` has no stage `prase`; did you mean `parse`?",
        "29: the key `stage` is missing; write `stage = \"parse\"`",
        "30: no kind of failure is `erorr`; did you mean `error`?",
        "31: `attempts` is not a whole number of at least 1; write `attempts = 1`",
        "33: the case tests nothing: it expects no `results`, no `stage` and no `dead`; write what it gives below \
         `[case.expect]`, or let `pcluster test --update` write it",
        "35: the case feeds nothing; write at least one item, as in `items = [{ id = 1 }]`",
        "37: the key `name` is missing; write `name = \"a total per order\"`",
        "40: the call has no name; write what the task calls, as in `http = \"GET https://api.example.com/price/1\"`",
    ];
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn files_are_read_in_order_and_a_name_is_unique() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: &str| {
        let path = folder.path().join("cases").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    let names = || {
        read(folder.path(), &chain(), Must::Expect)
            .map(|cases| cases.into_iter().map(|case| case.name).collect::<Vec<_>>())
    };
    assert_eq!(names().expect("no cases"), Vec::<String>::new());
    let case = |name: &str| format!("[[case]]\nname = \"{name}\"\nitems = [1]\nexpect.results = []\n");
    put("b.toml", &case("second"));
    put("a/deep.toml", &case("first"));
    put(".hidden.toml", "no case");
    put("notes.md", "no case");
    std::os::unix::fs::symlink("..", folder.path().join("cases/a/up")).expect("a link that leads back");
    assert_eq!(names().expect("cases"), ["first", "second"]);
    put("c.toml", &case("first"));
    put("d.toml", "[[case]\n");
    let faults = names().expect_err("mistakes");
    let told = faults.told(false).join("\n");
    assert_eq!((faults.count(), faults.documents().count()), (2, 2));
    assert!(told.contains("another case has the name `first`") && told.contains("c.toml:2:8"), "{told}");
    assert!(told.contains("d.toml:1"), "{told}");
}

#[test]
fn a_folder_that_a_replay_wrote_is_a_case() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("cases/shop-17");
    std::fs::create_dir_all(&own).expect("made");
    let put = |name: &str, content: &[u8]| std::fs::write(own.join(name), content).expect("written");
    let head = "# Written\nchain = \"shop\"\nletter = 17\nitem_id = \"A.0\"\nattempt = 3\n\n[[stage]]\nname = \"sum\"\n\
                task = \"sum\"\nenv = { A = \"b\" }\nconfig_json = \"{\\\"a\\\":[null]}\"\n\n";
    put("case.toml", format!("{head}[expected]\noutputs = 2\n").as_bytes());
    put("item.cbor", &[1]);
    put("calls.json", b"[]");
    put("outputs.cbor", &[1, 2]);
    put("outputs.json", b"1\n2\n");
    let case = || read(folder.path(), &chain(), Must::Expect).expect("a case").remove(0);
    let replay = case();
    assert_eq!((replay.name.as_str(), json(&replay.items)), ("shop-17", vec!["1".to_owned()]));
    assert_eq!(replay.config.values().map(ToString::to_string).collect::<Vec<_>>(), [r#"{"a":[null]}"#]);
    assert_eq!(json(replay.expect.results.as_deref().expect("results")), ["1", "2"]);
    let known = replay.replayed.as_ref().expect("a replay");
    assert_eq!((known.item_id.as_str(), known.attempt, known.stages.len(), known.env.len()), ("A.0", 3, 1, 1));

    // What it gives becomes what it expects: a failure, and then outputs again.
    let died = crate::cases::outcome::Died {
        stage: "sum".parse().expect("a name"),
        kind: FailureKind::Error,
        reason: "a \"b\"".to_owned(),
        attempts: 1,
        item: bytes::Bytes::new(),
    };
    let failed = crate::cases::outcome::Outcome { dead: vec![died], ..Default::default() };
    let passed =
        crate::cases::outcome::Outcome { results: vec![bytes::Bytes::from_static(&[7])], ..Default::default() };
    for outcome in [failed, passed] {
        let changed = crate::cases::update::update(&[(&case(), &outcome)]).expect("updated");
        assert_eq!(changed[0].name, "shop-17");
        assert_eq!(crate::cases::compare::compare(&case(), &outcome), []);
        assert_eq!(crate::cases::update::update(&[(&case(), &outcome)]).expect("updated"), []);
    }
    let text = std::fs::read_to_string(own.join("case.toml")).expect("read");
    assert_eq!(text, format!("{head}[expected]\noutputs = 1\n"));

    put("calls.json", b"{}");
    let told = read(folder.path(), &chain(), Must::Expect).expect_err("mistakes").told(false).join("\n");
    assert!(told.contains("calls.json") && told.contains("not the calls of a replay"), "{told}");
}

#[test]
fn a_wrong_line_of_items_is_shown_where_it_is() {
    let text = "[[case]]\nname = \"a\"\nitems = '''\n1\n{\"a\": }\n'''\nexpect.results = []\n";
    let (_, mistakes) = parse::cases(text, Path::new("a.toml"), &chain(), Must::Expect);
    assert_eq!(&text[mistakes[0].span.clone()], "{\"a\": }");
}

#[test]
fn the_examples_of_the_page_are_cases() {
    let page = include_str!("../../../../sdk/CASES.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    for block in blocks {
        let items = if block.starts_with("items") { "" } else { "items = [1]\n" };
        let whole = if block.starts_with("[[case]]") {
            block.to_owned()
        } else {
            format!("[[case]]\nname = \"a\"\n{items}{block}\n[case.expect]\nresults = []\n")
        };
        assert_eq!(cases(&whole).len(), 1, "{whole}");
    }
}
