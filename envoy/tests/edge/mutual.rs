//! Certificates between the edge and roles.

use serde_json::Value;
use stack::pki::{self, Authority, Validity};
use tonic::Code;

use crate::harness::{Edge, wait};

#[tokio::test]
async fn a_role_is_known_by_its_certificate_and_knows_the_edge() {
    let folder = tempfile::tempdir().expect("a folder");
    pki::ensure(folder.path()).expect("certificates can be made");
    let edge = Edge::start_mutual(folder.path(), "user").await;
    let token = edge.token();
    assert_eq!(edge.get("/v1/users/me", &token).await.status, 200);
    let response = edge.get("/v1/orders", &token).await;
    response.assert_refused(503, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert_eq!(edge.upstream.calls("ListOrders").len(), 0, "the certificate is not that of the order service");
}

#[tokio::test]
async fn the_edge_uses_a_new_certificate_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    pki::ensure(folder.path()).expect("certificates can be made");
    let edge = Edge::start_mutual(folder.path(), "user").await;
    let updates = async || {
        let page = edge.ask_admin("/stats?format=json&filter=cluster.user.client_ssl_socket_factory").await;
        let stats = page["stats"].as_array().cloned().unwrap_or_default();
        let update = stats.iter().find(|it| it["name"].as_str().is_some_and(|name| name.ends_with("update_by_sds")));
        update.map_or(0, |it| it["value"].as_u64().unwrap_or_default())
    };
    let before = updates().await;
    let authority = Authority::open(folder.path()).expect("it is there");
    authority.issue("edge", Validity::of(time::Duration::days(40))).expect("a certificate");
    wait("a new certificate", async || (updates().await > before).then_some(())).await;
    let response = edge.get("/v1/users/me", &edge.token()).await;
    assert_eq!((response.status, &response.json()["user"]["userId"]), (200, &Value::from("me")));
}
