//! Only a violation that every check finds is reported; discarded dead letters exempt.

use chassis::check::{Exemptions, Finding};

#[test]
fn what_is_wrong_only_once_is_not_reported() {
    let mut first = Finding::new("I0", "things");
    first.add("a", Some("on its way".to_owned()));
    first.add("b", Some("wrong".to_owned()));
    let mut second = Finding::new("I0", "things");
    second.add("b", Some("still wrong".to_owned()));
    second.add("c", Some("on its way".to_owned()));
    second.keep_repeated(&first);
    assert_eq!(second.violations.into_iter().collect::<Vec<_>>(), [("b".to_owned(), "still wrong".to_owned())]);
}

#[test]
fn exemptions_do_not_count_against_the_maximum_of_violations() {
    let all: Exemptions = (0..2_000).map(|thing| format!("{thing:04}")).collect();
    let mut finding = Finding::new("I0", "things");
    for thing in 0..=2_000 {
        finding.add_unless_exempt(&all, format!("{thing:04}"), Some("wrong".to_owned()));
    }
    assert_eq!((finding.exempted, finding.violations.into_keys().collect()), (2_000, vec!["2000".to_owned()]));
}
