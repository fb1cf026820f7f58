use super::*;

/// Texts that NATS would read as something else, or as two things.
const MISREAD: [&str; 14] =
    ["", " ", "a b", "a\tb", "a\r\nPUB x 0", "a\nb", "a\0b", "a\u{a0}b", "a\u{2028}b", "ä", "a..b", ".a", "a.", "."];

#[test]
fn what_nats_would_misread_is_no_name() {
    for text in MISREAD {
        assert!(BucketName::parse(text).is_err(), "{text:?}");
        assert!(StoreName::parse(text).is_err(), "{text:?}");
        assert!(KeyName::parse(text).is_err(), "{text:?}");
        assert!(Subject::parse(text).is_err(), "{text:?}");
        assert!(SubjectPattern::parse(text).is_err(), "{text:?}");
    }
    for text in ["*", ">", "a.*", "a.>", "a*", "a>b", "a.>.b", "*.a"] {
        assert!(BucketName::parse(text).is_err(), "{text:?}");
        assert!(KeyName::parse(text).is_err() && KeyPrefix::parse(text).is_err(), "{text:?}");
        assert!(Subject::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn each_name_takes_what_its_rule_says() {
    for text in ["cache", "Cache-2_b", &"x".repeat(250)] {
        assert!(BucketName::parse(text).is_ok() && StoreName::parse(text).is_ok(), "{text}");
    }
    for text in ["a.b", "a/b", "a$", &"x".repeat(251)] {
        assert!(BucketName::parse(text).is_err() && StoreName::parse(text).is_err(), "{text}");
    }
    for text in ["a", "a.b-c/d_e=f.7", "/", "-", &"k".repeat(1024)] {
        assert!(KeyName::parse(text).is_ok() && KeyPrefix::parse(text).is_ok(), "{text}");
    }
    for text in ["a:b", "a\\b", "_kv.a", &"k".repeat(1025)] {
        assert!(KeyName::parse(text).is_err() && KeyPrefix::parse(text).is_err(), "{text}");
    }
    assert!(KeyPrefix::parse("").is_ok() && KeyPrefix::parse("orders.").is_ok());
    assert!(KeyPrefix::parse("orders..").is_err() && KeyPrefix::parse(".").is_err());
    for text in ["models/größe 7.bin", "*", "a..b", "\r\n", &"n".repeat(1024)] {
        assert!(ObjectName::parse(text).is_ok(), "{text:?}");
    }
    assert!(ObjectName::parse("").is_err() && ObjectName::parse(&"n".repeat(1025)).is_err());
    for text in ["alerts", "alerts.high-1", "a.$b", "a._INBOX", "mypcluster.a", "pcluster-x"] {
        assert!(Subject::parse(text).is_ok() && SubjectPattern::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn what_belongs_to_pcluster_or_nats_is_never_granted() {
    for text in ["pcluster_chains", "pcluster_plugins", "PCLUSTER_x", "pCluster_", "pcluster"] {
        assert!(matches!(BucketName::parse(text), Err(NameProblem::Reserved { .. })), "{text}");
        assert!(matches!(StoreName::parse(text), Err(NameProblem::Reserved { .. })), "{text}");
    }
    for text in ["pcluster.a.in", "pcluster", "$KV.a.b", "$JS.API.INFO", "$SYS", "_INBOX.a", "_R_.a", "_GR_.a.b"] {
        assert!(matches!(Subject::parse(text), Err(NameProblem::Reserved { .. })), "{text}");
        assert!(matches!(SubjectPattern::parse(text), Err(NameProblem::Reserved { .. })), "{text}");
    }
    for text in [">", "*", "*.a", "*.>", "pcluster.>", "$JS.>", "_INBOX.>", "_INBOX_x.>"] {
        assert!(SubjectPattern::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_wildcard_is_a_whole_part() {
    for text in ["a.*", "a.>", "a.*.b", "a.*.>", "a.*.*"] {
        assert!(SubjectPattern::parse(text).is_ok(), "{text}");
    }
    for text in ["a.b*", "a.*b", "a.>.b", "a.b>", "a.>>", "a.**"] {
        assert!(matches!(SubjectPattern::parse(text), Err(NameProblem::Wildcard { .. })), "{text}");
    }
}

#[test]
fn a_pattern_covers_what_it_matches() {
    let table = [
        ("alerts.>", "alerts.a", true),
        ("alerts.>", "alerts.a.b", true),
        ("alerts.>", "alerts", false),
        ("alerts.>", "alerts2.a", false),
        ("alerts.*", "alerts.a", true),
        ("alerts.*", "alerts.a.b", false),
        ("alerts.*", "alerts", false),
        ("alerts.*.c", "alerts.b.c", true),
        ("alerts.*.c", "alerts.b.d", false),
        ("alerts", "alerts", true),
        ("alerts", "Alerts", false),
        ("alerts", "alerts.a", false),
    ];
    for (pattern, subject, matches) in table {
        let (pattern, subject) = (SubjectPattern::parse(pattern), Subject::parse(subject));
        let (pattern, subject) = (pattern.expect("a pattern"), subject.expect("a subject"));
        assert_eq!(pattern.matches(&subject), matches, "{pattern} {subject}");
        let same = SubjectPattern::parse(subject.as_str()).expect("a pattern");
        assert_eq!(pattern.covers(&same), matches, "{pattern} {subject}");
    }
    let table = [
        ("a.>", "a.>", true),
        ("a.>", "a.*", true),
        ("a.>", "a.b.>", true),
        ("a.>", "a.*.c", true),
        ("a.*", "a.*", true),
        ("a.*", "a.>", false),
        ("a.*.>", "a.>", false),
        ("a.*.>", "a.b.>", true),
        ("a.b", "a.*", false),
        ("a.b.>", "a.>", false),
    ];
    for (wide, narrow, covers) in table {
        let parse = |text| SubjectPattern::parse(text).expect("a pattern");
        assert_eq!(parse(wide).covers(&parse(narrow)), covers, "{wide} {narrow}");
    }
}

#[test]
fn a_problem_says_what_is_allowed() {
    let said = |problem: NameProblem| problem.to_string();
    assert_eq!(
        BucketName::parse("my cache").map_err(said),
        Err("the bucket `my cache` has the character ' '; allowed are letters, digits, `-` and `_`".to_owned())
    );
    assert_eq!(
        SubjectPattern::parse(">").map_err(said),
        Err("the pattern of subjects `>` has a wildcard in the wrong place: the first part must be a word, as in \
             `alerts.>`"
            .to_owned())
    );
    assert_eq!(
        Subject::parse("pcluster.a.in").map_err(said),
        Err("the subject `pcluster.a.in` belongs to pcluster, and is never granted".to_owned())
    );
    assert!(KeyName::parse("a\r\nb").map_err(said).is_err_and(|said| !said.contains('\n')));
}
