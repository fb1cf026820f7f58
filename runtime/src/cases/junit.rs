//! Results of cases as XML of `JUnit`, which CI systems read.

use std::fmt::Write;
use std::time::Duration;

/// A case that has run.
#[derive(Debug, Clone)]
pub(crate) struct Tested {
    /// The name of the case.
    pub(crate) name: String,
    /// Its file.
    pub(crate) file: String,
    /// The line of the file at which it begins.
    pub(crate) line: usize,
    /// How long it took.
    pub(crate) took: Duration,
    /// What was wrong, a line each. Empty if it has passed.
    pub(crate) problems: Vec<String>,
}

/// Returns the results of a chain's cases as a document of one suite. `at` is when they began, as RFC 3339.
pub(crate) fn document(chain: &str, ran: &[Tested], took: Duration, at: &str) -> String {
    let failed = ran.iter().filter(|ran| !ran.problems.is_empty()).count();
    let counts = format!("tests=\"{}\" failures=\"{failed}\" errors=\"0\" time=\"{}\"", ran.len(), seconds(took));
    let chain = escaped(chain);
    // Readers want no zone and no fraction.
    let at = escaped(at.split(['.', 'Z', '+']).next().unwrap_or_default());
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let _ = writeln!(text, "<testsuites name=\"pcluster test\" {counts}>");
    let _ = writeln!(text, "  <testsuite name=\"{chain}\" {counts} skipped=\"0\" timestamp=\"{at}\">");
    for Tested { name, file, line, took, problems } in ran {
        let (name, file) = (escaped(name), escaped(file));
        let class = format!("{chain}.{}", file.trim_end_matches(".toml").replace(['/', '\\'], "."));
        let _ = write!(
            text,
            "    <testcase name=\"{name}\" classname=\"{class}\" file=\"{file}\" line=\"{line}\" time=\"{}\"",
            seconds(*took)
        );
        match problems.first() {
            None => text.push_str("/>\n"),
            Some(first) => {
                let (first, all) = (escaped(first), escaped(&problems.join("\n")));
                let _ = write!(
                    text,
                    ">\n      <failure message=\"{first}\" type=\"difference\">{all}</failure>\n    </testcase>\n"
                );
            }
        }
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn seconds(took: Duration) -> String {
    format!("{:.3}", took.as_secs_f64())
}

/// Returns a text as XML 1.0. Characters that it cannot hold at all become U+FFFD. Line breaks and tabs survive in attributes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\t' | '\r' | '\u{7f}'..='\u{9f}' => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_each_case_with_its_time_and_what_was_wrong() {
        let ran = |name: &str, problems: &[&str]| Tested {
            name: name.to_owned(),
            file: "cases/orders.toml".to_owned(),
            line: 3,
            took: Duration::from_millis(12),
            problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
        };
        let ran =
            [ran("a \"total\" & <more>", &[]), ran("b", &["results[0]: expected \"\u{1b}\u{0}\", got 1\n2", "two"])];
        let text = document("orders", &ran, Duration::from_secs(1), "2026-01-01T10:00:00.123Z");
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites name=\"pcluster test\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"1.000\">
  <testsuite name=\"orders\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"1.000\" skipped=\"0\" timestamp=\"2026-01-01T10:00:00\">
    <testcase name=\"a &quot;total&quot; &amp; &lt;more&gt;\" classname=\"orders.cases.orders\" file=\"cases/orders.toml\" line=\"3\" time=\"0.012\"/>
    <testcase name=\"b\" classname=\"orders.cases.orders\" file=\"cases/orders.toml\" line=\"3\" time=\"0.012\">
      <failure message=\"results[0]: expected &quot;\u{fffd}\u{fffd}&quot;, got 1&#10;2\" type=\"difference\">results[0]: expected &quot;\u{fffd}\u{fffd}&quot;, got 1&#10;2&#10;two</failure>
    </testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(text, expected);
    }
}
