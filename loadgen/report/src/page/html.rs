//! The page as HTML: one file that asks the network for nothing.
//!
//! Everything is in it: style, script, numbers. Without scripts the tables say it all; a policy
//! in the head forbids every request.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Chart, Outcome, Page, Table, Verdict};

/// Renders `page` as a whole HTML document.
pub fn render(page: &Page) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) }
                style { (PreEscaped(UPLOT_CSS)) (PreEscaped(PAGE_CSS)) }
            }
            body { main { (content(page)) } (scripts(page)) }
        }
    };
    document.into_string()
}

fn content(page: &Page) -> Markup {
    html! {
        h1 { (page.title) }
        @if !page.lead.is_empty() { p.lead { (page.lead) } }
        @if let Some(verdict) = &page.verdict { (verdict_box(verdict)) }
        @for one in &page.summary { section { h2 { (one.title) } (table(one)) } }
        @for (at, one) in page.charts.iter().enumerate() { (chart(at, one)) }
        @for one in &page.details { section { h2 { (one.title) } (table(one)) } }
        footer { (page.footer) }
    }
}

fn verdict_box(verdict: &Verdict) -> Markup {
    let (class, sign) = match verdict.outcome {
        Outcome::Failed => ("verdict failed", "✗"),
        Outcome::Passed => ("verdict passed", "✓"),
        Outcome::Void => ("verdict void", "–"),
    };
    html! {
        div class=(class) role="status" {
            p { span.sign aria-hidden="true" { (sign) } " " (verdict.text) }
            @if !verdict.terms.is_empty() {
                ul {
                    @for term in &verdict.terms {
                        li class=(if term.is_met { "met" } else { "missed" }) {
                            (if term.is_met { "✓ " } else { "✗ " })
                            code { (term.text) } ": " (term.measured)
                        }
                    }
                }
            }
        }
    }
}

/// The chart's place, and its table. The tables are open until the script has drawn the charts.
fn chart(at: usize, chart: &Chart) -> Markup {
    let (title, note) = chart.texts();
    let id = format!("chart-{at}");
    let numbers = table(&chart.table());
    html! {
        section {
            h2 id=(id) { (title) }
            @if !note.is_empty() { p.note { (note) } }
            figure.chart data-chart=(at) aria-labelledby=(id) {}
            @match chart {
                Chart::Percentiles(_) => { (numbers) }
                Chart::Time(_) => { details open { summary { "Table" } (numbers) } }
            }
        }
    }
}

fn table(table: &Table) -> Markup {
    html! {
        div.scroll {
            table.facts[table.head.is_empty()] {
                caption { (table.title) }
                @if !table.head.is_empty() {
                    thead { tr { @for cell in &table.head { th scope="col" { (cell) } } } }
                }
                tbody { @for cells in &table.rows { (row(cells)) } }
            }
        }
    }
}

fn row(cells: &[String]) -> Markup {
    html! {
        @if let [first, others @ ..] = cells {
            tr {
                th scope="row" { (first) }
                @for cell in others { td { (cell) } }
            }
        }
    }
}

fn scripts(page: &Page) -> Markup {
    let drawings: Vec<_> = page.charts.iter().map(Chart::drawing).collect();
    let json = serde_json::to_string(&drawings).expect("numbers and texts are JSON");
    html! {
        script type="application/json" id="drawings" { (PreEscaped(inline_json(&json))) }
        script { (PreEscaped(UPLOT_JS)) }
        script { (PreEscaped(PAGE_JS)) }
    }
}

/// `json` as it may stand within a `script` element, whose end (`</script`) and comments (`<!--`)
/// are looked for in its text: there, `<` is only within strings.
fn inline_json(json: &str) -> String {
    json.replace('<', "\\u003c")
}

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
const UPLOT_JS: &str = include_str!("../../assets/uplot.min.js");
const UPLOT_CSS: &str = include_str!("../../assets/uplot.min.css");
const PAGE_JS: &str = include_str!("../../assets/page.js");
const PAGE_CSS: &str = include_str!("../../assets/page.css");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::latency_histogram;
    use crate::page::{Curve, Line, PercentileChart, Stroke, Term, TimeChart, Unit};
    use proptest::prelude::*;

    fn page(text: &str) -> Page {
        let text = || text.to_owned();
        let table = Table {
            title: text(),
            head: vec![text(), text()],
            rows: vec![vec![text(), text()], Vec::new()],
        };
        let percentiles = PercentileChart {
            title: text(),
            note: text(),
            curves: vec![Curve {
                name: text(),
                histogram: latency_histogram(),
            }],
            objectives: Vec::new(),
        };
        let line = Line {
            name: text(),
            values: vec![Some(1.0)],
            stroke: Stroke::Solid,
        };
        let time = TimeChart {
            title: text(),
            note: text(),
            unit: Unit::Milliseconds,
            seconds: vec![0.0],
            lines: vec![line],
        };
        let term = Term {
            text: text(),
            measured: text(),
            is_met: false,
        };
        Page {
            title: text(),
            lead: text(),
            verdict: Some(Verdict {
                outcome: Outcome::Failed,
                text: text(),
                terms: vec![term],
            }),
            summary: vec![table.clone()],
            charts: vec![Chart::Percentiles(percentiles), Chart::Time(time)],
            details: vec![table],
            footer: text(),
        }
    }

    /// What is within the element that holds the numbers.
    fn drawings(document: &str) -> &str {
        let start = document.find("id=\"drawings\">").unwrap() + "id=\"drawings\">".len();
        let length = document[start..].find("</script>").unwrap();
        &document[start..start + length]
    }

    fn check_is_text(text: &str) {
        let plain = render(&page("plain"));
        let document = render(&page(text));
        for tag in ["<script", "</script", "<img", "<b>", "<!--", "<td", "<h2"] {
            let count = |document: &str| document.matches(tag).count();
            assert_eq!(count(&document), count(&plain), "{tag} of {text:?}");
        }
        let drawings: serde_json::Value = serde_json::from_str(drawings(&document)).unwrap();
        assert_eq!(drawings[0]["lines"][0]["name"], text);
        assert_eq!(drawings[1]["lines"][0]["name"], text);
    }

    #[test]
    fn text_stays_text_wherever_it_stands() {
        for text in [
            "</script><script>alert(1)</script>",
            "</SCRIPT >",
            "<!--<script>",
            "</title><img src=x onerror=alert(1)>",
            "\"><b>",
            "' & \\ \u{2028}",
        ] {
            check_is_text(text);
        }
    }

    proptest! {
        #[test]
        fn any_text_stays_text(text in "[<>/&'\"\\\\!scriptSCRIPT\\- -]{0,24}") {
            check_is_text(&text);
        }
    }

    #[test]
    fn page_asks_the_network_for_nothing() {
        let document = render(&page("plain"));
        for request in [
            "src=",
            "href=",
            "url(",
            "@import",
            "fetch(",
            "XMLHttpRequest",
        ] {
            assert!(!document.contains(request), "{request}");
        }
        assert!(document.contains("content=\"default-src 'none'; "));
    }

    #[test]
    fn page_of_nothing_is_a_page() {
        let document = render(&Page::default());
        assert!(document.starts_with("<!DOCTYPE html>"), "{document}");
        assert_eq!(drawings(&document), "[]");
    }
}
