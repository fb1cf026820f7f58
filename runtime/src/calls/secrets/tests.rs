use super::*;

fn name(text: &str) -> SecretName {
    SecretName::parse(text).expect("a name")
}

#[test]
fn one_line_break_is_dropped_and_no_other_control_character_taken() {
    let value = |bytes: &[u8]| value(bytes.to_vec()).map(|secret| secret.reveal().to_vec());
    for bytes in [&b"token"[..], b"token\n", b"token\r\n"] {
        assert_eq!(value(bytes), Ok(b"token".to_vec()));
    }
    assert_eq!(value(b" a\xff "), Ok(b" a\xff ".to_vec()));
    assert_eq!(value(&vec![b'a'; 64 << 10]).map(|value| value.len()), Ok(64 << 10));
    for (bytes, problem) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"token\n\n", "has a line break"),
        (b"a\nb", "has a line break"),
        (b"token\r", "has a line break"),
        (b"a\0b", "has a line break"),
        (b"a\tb", "has a line break"),
        (&vec![b'a'; (64 << 10) + 1], "has more than 64 KiB"),
    ] {
        assert!(value(bytes).is_err_and(|told| told.starts_with(problem)), "{problem}");
    }
}

#[tokio::test]
async fn a_secret_is_a_file_of_its_folder_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("within")).expect("a folder");
    std::fs::write(path("within/data"), "linked\n").expect("written");
    std::os::unix::fs::symlink("within/data", path("link")).expect("a link");
    std::fs::write(path("api_token"), "value\n").expect("written");
    std::fs::write(path("lines"), "a\nb\n").expect("written");
    std::fs::write(path("large"), vec![b'a'; 65 << 10]).expect("written");
    rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).expect("a pipe");
    let secrets = Secrets::new(Some(SecretsFrom::Folder(folder.path().to_owned())));
    for (text, value) in [("api_token", "value"), ("link", "linked")] {
        assert_eq!(secrets.get(&name(text)).await.expect(text).reveal(), value.as_bytes());
    }
    for (text, told) in [
        ("none", "the secret `none` has no value on this node; its operator puts it into a file of this name in /"),
        ("within", "the secret `within` cannot be read on this node: it is not a file"),
        ("pipe", "the secret `pipe` cannot be read on this node: it is not a file"),
        (
            "lines",
            "the value of the secret `lines` has a line break or another control character; a secret is one line",
        ),
        ("large", "the value of the secret `large` has more than 64 KiB"),
    ] {
        let problem = secrets.get(&name(text)).await.expect_err(text).to_string();
        assert!(problem.starts_with(told), "{problem}");
    }
}

#[tokio::test]
async fn a_secret_may_be_an_environment_variable() {
    assert_eq!(variable(&name("api-token_2")), "PCLUSTER_SECRET_API_TOKEN_2");
    let problem =
        Secrets::new(Some(SecretsFrom::Environment)).get(&name("of_no_test")).await.expect_err("none").to_string();
    assert!(problem.ends_with("its operator sets the environment variable PCLUSTER_SECRET_OF_NO_TEST"), "{problem}");
    let problem = Secrets::new(None).get(&name("token")).await.expect_err("none").to_string();
    assert!(problem.starts_with("this node has no secrets"), "{problem}");
}

#[tokio::test]
async fn a_rotated_secret_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "old").expect("written");
    let secrets = Secrets::new(Some(SecretsFrom::Folder(folder.path().to_owned())));
    let secret = secrets.get(&name("token")).await.expect("a secret");
    std::fs::write(&path, "new").expect("written");
    assert_eq!(secrets.get(&name("token")).await.expect("as it was read"), secret);
    let before = Instant::now().checked_sub(CACHED).expect("a time");
    lock(&secrets.read).insert(name("token"), (secret, before));
    assert_eq!(secrets.get(&name("token")).await.expect("read again").reveal(), b"new");
}

#[test]
fn nothing_that_is_written_of_a_secret_shows_it() {
    let secret = value(b"token".to_vec()).expect("a secret");
    assert_eq!(format!("{secret:?}"), "Secret(***)");
    let secrets = Secrets::new(None);
    lock(&secrets.read).insert(name("a"), (secret, Instant::now()));
    assert!(!format!("{secrets:?}").contains("token"));
}
