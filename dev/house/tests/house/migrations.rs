//! Migrations run while the previous release is serving: statements that would block its writers, or remove what it still uses,
//! are refused here. docs/architecture.md says what to do instead.

use std::collections::BTreeSet;
use std::path::Path;

use super::root;

/// The last migration of a folder that is older than these rules.
const BEFORE: [(&str, u32); 5] =
    [("inventory", 102), ("order", 100), ("payment", 104), ("product", 100), ("user", 100)];
/// The same, of the migrations that all folders share.
const CHASSIS_BEFORE: u32 = 2;

#[test]
fn no_migration_blocks_writers() {
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for service in roster::services() {
        let last = BEFORE.into_iter().find(|(name, _)| *name == service.name).map_or(0, |(_, last)| last);
        for file in std::fs::read_dir(root().join("migrations").join(service.name)).expect("its folder") {
            let path = file.expect("a file").path();
            let version = version(&path);
            looked_at += 1;
            if version > if version < 100 { CHASSIS_BEFORE } else { last } {
                let text = std::fs::read_to_string(&path).expect("it can be read");
                wrong.extend(judge(&text).into_iter().map(|why| format!("{}: {why}", path.display())));
            }
        }
    }
    assert!(looked_at >= 15, "{looked_at}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn version(path: &Path) -> u32 {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('_').next().and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{name} begins with no number"))
}

/// The violations of a migration.
fn judge(text: &str) -> Vec<String> {
    let is_contraction = text.lines().any(|line| line.starts_with("-- contract: ") && line.len() > 20);
    let statements = statements(text);
    let created: BTreeSet<_> = statements.iter().filter_map(|it| it.strip_prefix("create table ")).map(name).collect();
    let is_new = |table: &str| created.contains(&name(table));
    let (mut wrong, mut changes_schema, mut changes_data) = (Vec::new(), false, false);
    for it in &statements {
        let mut refuse = |why: &str| wrong.push(format!("{why}: `{it}`"));
        if let Some(table) = ["insert into ", "update ", "delete from "].iter().find_map(|verb| it.strip_prefix(verb)) {
            changes_data |= !is_new(table);
        } else if it.starts_with("with ") {
            changes_data = true;
        } else {
            changes_schema = true;
        }
        if it.strip_prefix("alter table ").is_some_and(|table| !is_new(table.trim_start_matches("only "))) {
            if it.contains(" add constraint ") && !it.contains(" not valid") && !it.contains(" using index ") {
                refuse(
                    "a constraint reads the whole table under a lock: add it `not valid`, and validate it in the next migration",
                );
            }
            if it.contains(" add column ") && it.contains(" not null") && !it.contains(" default ") {
                refuse("a column that must not be null needs a default");
            }
            if it.contains(" set not null") {
                refuse("this reads the whole table under a lock: add a check constraint `not valid`, and validate it");
            }
            if it.contains(" alter column ") && it.contains(" type ") {
                refuse("this rewrites the whole table under a lock: add another column");
            }
            if (it.contains(" rename ") || it.contains(" drop column ")) && !is_contraction {
                refuse("the previous release may use it: add `-- contract: ` and why nothing uses it any more");
            }
        }
        let index = ["create index ", "create unique index "].iter().find_map(|verb| it.strip_prefix(verb));
        let is_elsewhere = |index: &str| index.split_once(" on ").is_none_or(|(_, table)| !is_new(table));
        if index.is_some_and(|index| !index.starts_with("concurrently ") && is_elsewhere(index)) {
            refuse(
                "an index on a table in use is created `concurrently`, in a file that begins with `-- no-transaction`",
            );
        }
        if it.starts_with("drop table ") && !is_contraction {
            refuse("the previous release may use it: add `-- contract: ` and why nothing uses it any more");
        }
        if ["lock table ", "truncate ", "cluster ", "vacuum full", "reindex table "]
            .iter()
            .any(|verb| it.starts_with(verb))
        {
            refuse("this blocks all other sessions");
        }
    }
    if changes_schema && changes_data {
        wrong
            .push("data and schema need separate migrations: locks would be held until the last row is written".into());
    }
    wrong
}

/// The first word: the name of a table.
fn name(text: &str) -> String {
    let text = text.trim_start_matches("if not exists ");
    text.split([' ', '(', ';']).next().unwrap_or_default().trim_matches('"').to_owned()
}

/// The statements, in lower case, without comments, with single spaces. A text between `$$` is part of its statement.
fn statements(text: &str) -> Vec<String> {
    let code: Vec<_> = text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let (mut all, mut one) = (Vec::new(), String::new());
    for (at, part) in code.join(" ").split("$$").enumerate() {
        if at % 2 == 1 {
            one.push_str("$$…$$");
            continue;
        }
        let mut parts = part.split(';');
        one.push_str(parts.next().unwrap_or_default());
        for next in parts {
            all.push(std::mem::replace(&mut one, next.to_owned()));
        }
    }
    all.push(one);
    let plain = |it: &String| it.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    all.iter().map(plain).filter(|it| !it.is_empty()).collect()
}

#[test]
fn what_blocks_writers_is_refused() {
    for bad in [
        "create index thing_by_age on thing (age);",
        "create unique index thing_by_age on thing (age);",
        "alter table thing add constraint thing_age check (age > 0);",
        "alter table thing\n  add column age integer,\n  add constraint thing_user foreign key (user_id) references account;",
        "alter table thing add column age integer not null;",
        "alter table thing alter column age set not null;",
        "alter table thing alter column age type bigint;",
        "alter table thing rename column age to years;",
        "alter table thing drop column age;",
        "-- contract:\nalter table thing drop column age;",
        "drop table thing;",
        "lock table thing;",
        "truncate thing;",
        "alter table thing add column age integer; update thing set age = 1;",
        "create table other (id uuid); insert into thing select * from other;",
        "ALTER TABLE thing -- not valid\n ADD CONSTRAINT thing_age CHECK (age > 0);",
    ] {
        assert!(!judge(bad).is_empty(), "{bad}");
    }
    for good in [
        "create table thing (id uuid, constraint thing_id primary key (id)); create index thing_x on thing (id);",
        "create table thing (id uuid); insert into thing default values; alter table thing add constraint x check (true);",
        "-- no-transaction\ncreate index concurrently thing_by_age on thing (age);",
        "alter table thing add column age integer not null default 0;",
        "alter table thing add constraint thing_age check (age > 0) not valid;",
        "alter table thing validate constraint thing_age;",
        "update thing set age = 1 where age is null;",
        "-- contract: nothing has read it since the release before\nalter table thing drop column age;",
        "create function f() returns trigger language plpgsql as $$ begin update thing set x = 1; return new; end $$;",
    ] {
        assert_eq!(judge(good), [""; 0], "{good}");
    }
}
