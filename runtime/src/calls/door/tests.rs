use std::collections::BTreeMap;

use super::*;
use crate::calls::grant::{Access, CallLimits, HttpGrant, Networks};
use crate::calls::http::node::HttpNode;
use crate::calls::http::resolve::SystemResolver;
use crate::calls::message::Response;
use crate::calls::names::{BucketName, SubjectPattern};

/// Answers each call with what it is about.
struct Told;

impl Stores for Told {
    fn run(
        self: Arc<Self>,
        request: StoreRequest,
        room: u64,
        key: Option<String>,
    ) -> BoxFuture<'static, Result<Bytes, CallFailure>> {
        let mut response = Response::new();
        response.text("target", &request.target());
        response.number("room", room);
        if let Some(key) = &key {
            response.text("key", key);
        }
        Box::pin(std::future::ready(Ok(response.finish())))
    }
}

/// An item of whose last attempt this was sent, with its log.
#[derive(Clone, Default)]
struct Known {
    sent: BTreeMap<String, String>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Item for Known {
    fn sent(&self, key: &str) -> Option<String> {
        self.sent.get(key).cloned()
    }

    fn log(&self, _: Level, line: String) {
        lock(&self.lines).push(line);
    }
}

fn door(limits: CallLimits) -> Arc<Door> {
    let http = HttpNode::new(None, None, Arc::new(SystemResolver)).expect("no settings that could be wrong");
    let secrets = Secrets::new(None);
    let grants = Grants {
        http: vec![HttpGrant::parse("http://127.0.0.1:9").expect("a grant")],
        kv: [(BucketName::parse("cache").expect("a name"), Access::Read)].into(),
        publish: vec![SubjectPattern::parse("alerts.>").expect("a pattern")],
        limits,
        records_bodies: true,
        ..Grants::default()
    };
    Arc::new(Door {
        grants: Arc::new(grants),
        lists: ["http", "kv", "objects", "publish"].map(str::to_owned).into(),
        http: HttpClient::new(http, Networks::default(), Arc::clone(&secrets)),
        stores: Arc::new(Told),
        secrets,
    })
}

fn caller() -> Caller {
    Caller { chain: "c".to_owned(), stage: "s".to_owned(), fed: "k.1".to_owned(), item: "i".to_owned() }
}

fn request(fields: &[(&str, &str)]) -> Bytes {
    let mut request = Response::new();
    for (key, value) in fields {
        request.text(key, value);
    }
    request.finish()
}

/// Returns the texts of an answer, and whether it is a failure.
async fn ask(item: &Arc<ItemDoor>, name: &str, fields: &[(&str, &str)]) -> (bool, Vec<String>) {
    let (failed, bytes) = match Arc::clone(item).call(name, &request(fields)).await {
        Answer::Response(bytes) => (false, bytes),
        Answer::Failure(bytes) => (true, bytes),
    };
    let mut answer = Request::read(&bytes).expect("a map");
    let texts = ["kind", "target", "key", "message"].map(|key| answer.text(key).expect("a text").map(str::to_owned));
    (failed, texts.into_iter().flatten().collect())
}

#[tokio::test]
async fn only_what_is_listed_and_granted_passes() {
    let item = door(CallLimits::default()).open(caller(), Box::<Known>::default(), Notes::default());
    for (name, fields, says) in [
        ("ftp.get", &[][..], "there is no call `ftp.get`"),
        ("secrets.get", &[("name", "token")], "the plugin does not list `secrets`"),
        ("objects.get", &[("store", "models"), ("name", "m")], "the stage grants no `objects`"),
        ("kv.put", &[("bucket", "cache"), ("key", "k"), ("value", "v")], "kv = { cache = \"read-write\" }"),
        ("kv.get", &[("bucket", "other"), ("key", "k")], "kv = { other = \"read\" }"),
        ("kv.get", &[("bucket", "cache"), ("key", "k"), ("more", "1")], "an unknown key `more`"),
        ("kv.get", &[("bucket", "pcluster_chains"), ("key", "k")], "never granted"),
        ("publish", &[("subject", "orders.x")], "publish = [\"orders.x\"]"),
        ("publish", &[("subject", "$JS.API.INFO")], "never granted"),
        ("http", &[("url", "http://127.0.0.1:10/")], "`http` of its `[stage.allow]`"),
        ("http", &[("url", "http://127.0.0.1:9/")], "127.0.0.1"),
    ] {
        let (failed, texts) = ask(&item, name, fields).await;
        assert!(failed && texts.last().is_some_and(|message| message.contains(says)), "{name} {fields:?}: {texts:?}");
    }
    let (failed, texts) = ask(&item, "kv.get", &[("bucket", "cache"), ("key", "k")]).await;
    assert_eq!((failed, texts), (false, vec!["cache/k".to_owned()]));
    let record = item.record().expect("calls");
    let last = record.calls.last().expect("a call");
    assert_eq!((last.call.as_str(), last.target.as_str(), last.outcome.as_str()), ("kv.get", "cache/k", "ok"));
    assert_eq!(record.calls[0].outcome, "invalid");
    assert!(last.answer.is_some() && record.calls.len() == 12);
}

#[tokio::test]
async fn a_call_carries_the_same_key_at_each_attempt_and_another_body_is_told() {
    let door = door(CallLimits::default());
    let alert = [("subject", "alerts.x"), ("payload", "first")];
    let first = door.open(caller(), Box::<Known>::default(), Notes::default());
    let keys = [ask(&first, "publish", &alert).await.1, ask(&first, "publish", &alert).await.1];
    assert_ne!(keys[0], keys[1], "equal calls of an item are numbered");
    let record = first.record().expect("calls");
    let sent = record.calls.iter().map(|called| {
        let (key, body) = (called.key.clone().expect("a key"), called.body.clone().expect("a body"));
        assert_eq!(called.safety, Safety::Keyed);
        (key, body)
    });
    let known = Known { sent: sent.collect(), ..Known::default() };
    let second = door.open(caller(), Box::new(known.clone()), Notes::default());
    assert_eq!(ask(&second, "publish", &alert).await.1, keys[0]);
    assert!(lock(&known.lines).is_empty());
    let other = [("subject", "alerts.x"), ("payload", "other")];
    assert_eq!(ask(&second, "publish", &other).await.1, keys[1]);
    assert!(lock(&known.lines)[0].starts_with("`alerts.x` is sent another body than at the attempt before"));
}

#[tokio::test]
async fn an_item_calls_and_sends_no_more_than_its_stage_allows() {
    let few = door(CallLimits { calls: 2, ..CallLimits::default() }).open(
        caller(),
        Box::<Known>::default(),
        Notes::default(),
    );
    let get = [("bucket", "cache"), ("key", "k")];
    for _ in 0..2 {
        assert!(!ask(&few, "kv.get", &get).await.0);
    }
    let (failed, texts) = ask(&few, "kv.get", &get).await;
    assert!(failed && texts[0] == "too_large" && texts[1].contains("2 calls"), "{texts:?}");
    let little = door(CallLimits { sent: 1_000, ..CallLimits::default() }).open(
        caller(),
        Box::<Known>::default(),
        Notes::default(),
    );
    let body = "x".repeat(600);
    assert!(!ask(&little, "publish", &[("subject", "alerts.x"), ("payload", &body)]).await.0);
    let (failed, texts) = ask(&little, "publish", &[("subject", "alerts.x"), ("payload", &body)]).await;
    assert!(failed && texts[1].contains("1000 bytes"), "{texts:?}");
}

#[tokio::test]
async fn an_initializer_may_read_stores_and_nothing_else() {
    let init = door(CallLimits::default()).open_for_init();
    assert!(!ask(&init, "kv.get", &[("bucket", "cache"), ("key", "k")]).await.0);
    for (name, fields) in [("http", [("url", "http://127.0.0.1:9/")]), ("publish", [("subject", "alerts.x")])] {
        let (failed, texts) = ask(&init, name, &fields).await;
        assert!(failed && texts[0] == "denied" && texts[1].contains("needs an item"), "{texts:?}");
    }
}
