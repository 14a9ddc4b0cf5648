//! Which RPCs require an idempotency key, that they use it, and that a test of their service tries it.

use std::collections::BTreeSet;
use std::path::Path;

use prost_reflect::{Kind, MethodDescriptor};

use super::{is_test, methods, root, sources};

/// The RPCs that move money or stock, or create an order or a user.
const TAKE_A_KEY: [&str; 8] = [
    "souk.inventory.v1.InventoryService.AdjustStock",
    "souk.inventory.v1.InventoryService.ReceiveStock",
    "souk.order.v1.OrderService.CancelOrder",
    "souk.order.v1.OrderService.CreateOrder",
    "souk.order.v1.OrderService.FulfillOrder",
    "souk.order.v1.OrderService.ReturnItems",
    "souk.payment.v1.PaymentService.RefundPayment",
    "souk.user.v1.UserService.RegisterUser",
];

const REQUIRED: i32 = 2;

fn takes_a_key(method: &MethodDescriptor) -> bool {
    let extension = method.parent_pool().get_extension_by_name("souk.policy.v1.policy").expect("it is defined");
    let options = method.options();
    let policy = options.get_extension(&extension);
    let idempotency = policy.as_message().and_then(|policy| policy.get_field_by_name("idempotency")?.as_enum_number());
    idempotency == Some(REQUIRED)
}

#[test]
fn rpcs_that_move_money_or_stock_or_create_require_a_key() {
    let methods = methods();
    let there: BTreeSet<_> = methods.iter().map(|method| method.full_name().to_owned()).collect();
    let taking: BTreeSet<_> =
        methods.iter().filter(|method| takes_a_key(method)).map(|method| method.full_name().to_owned()).collect();
    let listed: BTreeSet<_> = TAKE_A_KEY.map(str::to_owned).into_iter().filter(|name| there.contains(name)).collect();
    assert_eq!(taking, listed);
}

#[test]
fn requests_have_a_request_id_if_they_require_a_key() {
    for method in methods() {
        let field = method.input().get_field_by_name("request_id");
        assert_eq!(field.is_some(), takes_a_key(&method), "{}", method.full_name());
        if let Some(field) = field {
            assert_eq!(
                (field.number(), field.kind(), field.is_list()),
                (1, Kind::String, false),
                "{}",
                method.full_name()
            );
        }
    }
}

#[test]
fn every_key_is_used_and_tested() {
    let sources = sources(&root().join("services"));
    for method in methods().iter().filter(|method| takes_a_key(method)) {
        let request = method.input().name().to_owned();
        let takes = |text: &str| {
            ["take_key(&mut request.request_id)", "idempotency::begin("].iter().all(|it| text.contains(it))
        };
        let handler = sources.iter().find(|(path, text)| !is_test(path) && text.contains(&request) && takes(text));
        assert!(handler.is_some(), "no handler uses the key of {}", method.full_name());
        let tried =
            sources.iter().any(|(path, text)| is_test(path) && text.contains(&request) && text.contains("try_key("));
        assert!(tried, "no test covers the key of {}", method.full_name());
    }
}

#[test]
fn a_service_that_stores_responses_deletes_old_ones() {
    let sources = sources(&root().join("services"));
    let service = |path: &Path| {
        path.strip_prefix(root()).expect("it is ours").components().nth(1).map(|it| it.as_os_str().to_owned())
    };
    let with = |what: &str| -> BTreeSet<_> {
        let with = sources.iter().filter(|(path, text)| !is_test(path) && text.contains(what));
        with.filter_map(|(path, _)| service(path)).collect()
    };
    let keep = with("idempotency::begin(");
    assert!(keep.len() >= 3, "{keep:?}");
    let forget = with(".database(&crate::SCHEMA, &service.db, &service.clock)");
    assert!(keep.is_subset(&forget), "a role with a database deletes old responses: {keep:?}, {forget:?}");
}
