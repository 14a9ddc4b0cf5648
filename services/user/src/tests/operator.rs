use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};

use chassis::boot::Prefixed;
use clap::{Args, Command, FromArgMatches};

use super::Fixture;
use super::register::PASSWORD;
use super::session::login;
use super::signing::File;
use crate::{Config, create_operator};

fn config(url: &str) -> Prefixed<Config> {
    let command = Prefixed::<Config>::augment_args(Command::new("user"));
    let flags = ["user", "--user-database-url", url, "--user-database-connections=2", "--user-password-slots=1"];
    Prefixed::from_arg_matches(&command.get_matches_from(flags)).expect("these are good settings")
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_operator_is_made_once_and_can_sign_in(_: PgPoolOptions, options: PgConnectOptions) {
    let config = config(options.to_url_lossy().as_str());
    let file = File::new("password", &format!("{PASSWORD}\n"));
    let first = create_operator(&config, "Op@Example.com", file.path()).await.expect("created");
    assert_eq!(first, "the operator op@example.com was created");

    let other = File::new("password", "quite another password\n");
    let again = create_operator(&config, "op@example.com", other.path()).await.expect("there");
    assert!(again.contains("exists") && again.contains("left as it is"), "{again}");

    let db = PgPool::connect_with(options).await.expect("the database is there");
    let role = sqlx::query_scalar!("select role from account").fetch_one(&db).await.expect("one account");
    assert_eq!(role, "OPERATOR");
    let fixture = Fixture::open(db).await;
    fixture.sessions.clone().create_session(login("op@example.com", PASSWORD)).await.expect("the first password");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_customer_does_not_become_an_operator(_: PgPoolOptions, options: PgConnectOptions) {
    let config = config(options.to_url_lossy().as_str());
    let fixture = Fixture::open(PgPool::connect_with(options).await.expect("the database is there")).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let file = File::new("password", PASSWORD);
    let refused = create_operator(&config, "ada@example.com", file.path()).await.expect_err("a customer's").to_string();
    assert!(refused.contains("ada@example.com") && refused.contains("CUSTOMER"), "{refused}");
}

#[tokio::test]
async fn what_could_never_sign_in_is_refused() {
    let config = config("postgres://127.0.0.1:1/x");
    for password in ["short".to_owned(), "x".repeat(129)] {
        let file = File::new("password", &password);
        let refused =
            create_operator(&config, "op@example.com", file.path()).await.expect_err("not 15 to 128").to_string();
        assert!(refused.contains("--password-file") && refused.contains("15 to 128"), "{refused}");
        assert!(!refused.contains(&password), "a password is not repeated");
    }
    let file = File::new("password", PASSWORD);
    for email in ["op".to_owned(), format!("{}@example.com", "x".repeat(254))] {
        let refused = create_operator(&config, &email, file.path()).await.expect_err("no e-mail address").to_string();
        assert!(refused.contains("--email"), "{refused}");
    }
}
