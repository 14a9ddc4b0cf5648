use std::collections::BTreeMap;

use clap::Parser;

use super::*;
use crate::routes::{Shape, Token};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Prefixed<Config>,
}

fn config(arguments: &[&str]) -> Prefixed<Config> {
    Cli::parse_from([&["edge"], arguments].concat()).config
}

#[test]
fn every_public_rpc_has_one_route_by_its_policy_and_internal_ones_have_none() {
    let rpcs = routes::read(contracts::DESCRIPTORS).expect("the contracts have policies");
    let by_path: BTreeMap<_, _> = rpcs.iter().map(|rpc| (rpc.path.as_str(), rpc)).collect();
    assert_eq!(by_path.len(), rpcs.len(), "one route each");
    let rpc =
        |path: &str| by_path.get(path).map(|rpc| (rpc.cluster.as_str(), rpc.class, rpc.counted, rpc.token, rpc.shape));

    let expected = Some(("order", "write", Some("user: write"), Token::Required, Shape::Write));
    assert_eq!(rpc("/souk.order.v1.OrderService/CreateOrder"), expected);
    let expected = Some(("product", "read", None, Token::None, Shape::Read));
    assert_eq!(rpc("/souk.product.v1.ProductService/GetProduct"), expected);
    let expected = Some(("user", "write", Some("client: account"), Token::None, Shape::Write));
    assert_eq!(rpc("/souk.user.v1.SessionService/CreateSession"), expected);
    for internal in ["/souk.product.v1.ProductService/QuoteItems", "/souk.ops.v1.OpsService/ListDeadLetters"] {
        assert_eq!(rpc(internal), None, "{internal}");
    }
}

#[test]
fn the_configuration_has_each_route_and_is_the_same_each_time() {
    let yaml = render(&config(&[]), contracts::DESCRIPTORS).expect("it renders");
    assert_eq!(render(&config(&[]), contracts::DESCRIPTORS).expect("it renders"), yaml);
    for rpc in routes::read(contracts::DESCRIPTORS).expect("the contracts have policies") {
        assert_eq!(yaml.matches(&format!("match: {{path: {}}}", rpc.path)).count(), 1, "{}", rpc.path);
    }
    assert!(!yaml.contains("match: {path: /souk.product.v1.ProductService/QuoteItems}"));
}

#[test]
fn an_invalid_endpoint_is_named_with_its_variable() {
    for odd in ["order", "http://order:9005", "a b:80", "order:0", "order:65536", ":80", "::1:80", "[order]:80", ""] {
        let error = render(&config(&["--edge-order-endpoints", odd]), contracts::DESCRIPTORS).expect_err(odd);
        assert_eq!(error.to_string(), format!("EDGE_ORDER_ENDPOINTS: `{odd}` is not host:port"));
    }
    let bad = config(&["--edge-order-endpoints", "a:80, b:80"]);
    let error = render(&bad, contracts::DESCRIPTORS).expect_err("a space");
    assert_eq!(error.to_string(), "EDGE_ORDER_ENDPOINTS: ` b:80` is not host:port");
    render(&config(&["--edge-order-endpoints", "order-0.souk_1:80,10.0.0.1:81,[::1]:82"]), contracts::DESCRIPTORS)
        .expect("all");
}

/// The names of the listeners, or what is wrong with the settings.
fn listeners_of(arguments: &[&str]) -> Result<Vec<&'static str>, String> {
    let yaml = render(&config(arguments), contracts::DESCRIPTORS).map_err(|error| error.to_string())?;
    Ok(["edge", "edge_tls"].into_iter().filter(|name| yaml.contains(&format!("- name: {name}\n"))).collect())
}

#[test]
fn clients_on_a_network_are_not_served_without_tls() {
    const TLS: &str = "--edge-tls-listen=0.0.0.0:8443";
    assert_eq!(listeners_of(&[]), Ok(vec!["edge"]), "on loopback");
    assert_eq!(listeners_of(&["--edge-listen=[::1]:80", TLS]), Ok(vec!["edge", "edge_tls"]));
    assert_eq!(listeners_of(&["--edge-listen=off", TLS]), Ok(vec!["edge_tls"]));
    for public in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80"] {
        let listen = format!("--edge-listen={public}");
        for others in [&[][..], &[TLS]] {
            let refused = listeners_of(&[&[listen.as_str()], others].concat()).expect_err(public);
            assert!(refused.starts_with(&format!("EDGE_LISTEN: `{public}` is not on loopback")), "{refused}");
        }
        assert_eq!(listeners_of(&[&listen, "--edge-plain=on"]), Ok(vec!["edge"]), "{public}: as a setting says");
    }
    let none = listeners_of(&["--edge-listen=off"]).expect_err("none");
    assert!(none.starts_with("EDGE_LISTEN is `off` and EDGE_TLS_LISTEN is not set"), "{none}");
    for odd in ["", "on", "8080", "localhost:8080"] {
        assert!(Cli::try_parse_from(["edge", &format!("--edge-listen={odd}")]).is_err(), "{odd}");
    }
}

#[test]
fn limits_and_times_that_envoy_would_ignore_are_refused() {
    let arguments = [
        "--souk-limit-read-rate=0",
        "--souk-limit-write-burst=0",
        "--souk-limit-account-count=0",
        "--souk-limit-account-window=0s",
        "--souk-limit-network-factor=0",
        "--edge-limits-timeout=0s",
        "--edge-timeout=0s",
        "--edge-timeout=5001ms",
        "--edge-max-body=0",
    ];
    for argument in arguments {
        assert!(Cli::try_parse_from(["edge", argument]).is_err(), "{argument}");
    }
}

#[test]
fn every_binding_of_the_contracts_is_in_the_tables() {
    let lua = bindings::write_lua(contracts::DESCRIPTORS).expect("the contracts are read");
    for line in [
        r#"{method = "POST", path = "^/v1/orders/([^/:]+)%:cancel$", variables = {"order_id"}, request = "souk.order.v1.CancelOrderRequest", body = "*", is_raw = false},"#,
        r#"{method = "PATCH", path = "^/v1/products/([^/:]+)$", variables = {"product.product_id"}, request = "souk.product.v1.UpdateProductRequest", body = "product", is_raw = false},"#,
        r#"path = "^/v1/payments/webhooks/([^/:]+)$", variables = {"provider"}, request = "souk.payment.v1.ReceiveWebhookRequest", body = "body", is_raw = true},"#,
        r#"{name = "items", json = "items", kind = "message", type = "souk.order.v1.OrderItem", is_list = true}"#,
        r#"{name = "amount_minor", json = "amountMinor", kind = "int64"}"#,
        r#"{name = "create_time", json = "createTime", kind = "string"}"#,
    ] {
        assert!(lua.contains(line), "{line}");
    }
    assert!(!lua.contains("QuoteItems"), "internal RPCs have no binding");
}
