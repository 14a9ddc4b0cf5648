//! One Envoy as the sidecar of the edge and of all roles: it names the caller of each request, as a mesh without encryption would.

use std::os::unix::fs::symlink;

use anyhow::Result;
use roster::Role;
use serde_json::{Value, json};

use stack::layout::Layout;
use stack::parts;
use stack::supervisor::Supervisor;

use super::edges;

const FIRST_PORT: u16 = 14_941;

/// The connections between parties: the caller, whom it calls, and the setting of the caller that says where. All roles of one
/// process read keys from the user service over one connection.
fn links() -> impl Iterator<Item = (&'static str, Role, String)> {
    let edge = roster::ROLES.into_iter().map(|role| ("edge", role, format!("EDGE_{}", role.variable("endpoints"))));
    let roles = [
        (roster::ORDER, roster::PRODUCT, "ORDER_PRODUCT_URL"),
        (roster::PRODUCT, roster::INVENTORY, "PRODUCT_INVENTORY_URL"),
        (roster::INVENTORY, roster::ORDER, "INVENTORY_ORDER_URL"),
        (roster::PAYMENT, roster::ORDER, "PAYMENT_ORDER_URL"),
        (roster::NOTIFICATION, roster::USER, "NOTIFICATION_USER_URL"),
        (roster::GATEWAY, roster::USER, "SOUK_USER_URL"),
    ];
    edge.chain(roles.map(|(caller, peer, setting)| (caller.name, peer, setting.to_owned())))
}

/// Of the URIs of all parties.
pub(super) const PREFIX: &str = "spiffe://cluster.local/ns/souk/sa/";

/// The settings of `souk` with which all connections pass through the sidecar.
pub(super) fn settings() -> Vec<(String, String)> {
    let peers = (FIRST_PORT..).zip(links()).map(|(port, (caller, _, setting))| {
        let scheme = if caller == "edge" { "" } else { "http://" };
        (setting, format!("{scheme}127.0.0.1:{port}"))
    });
    let mesh = [("SOUK_TLS_MODE", "mesh"), ("SOUK_TLS_MESH_PREFIX", PREFIX)];
    let mesh = mesh.map(|(name, value)| (name.to_owned(), value.to_owned()));
    mesh.into_iter().chain(peers).collect()
}

/// The header by which a sidecar names the caller, as Envoy adds it to requests.
pub(super) fn caller(name: &str) -> Value {
    let value = format!("URI={PREFIX}{name}");
    json!([{"append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "header": {"key": "x-forwarded-client-cert", "value": value}}])
}

/// Starts it. Its process is named `sidecar`, so that its CPU is not counted as that of the edge.
pub(super) async fn start(supervisor: &mut Supervisor, layout: &Layout) -> Result<()> {
    let file = edges::write(layout, "sidecar.json", &configuration(layout))?;
    let mut spec = parts::envoy_with(layout, "sidecar", &file, FIRST_PORT)?;
    let program = layout.home.join("sidecar");
    if program.is_symlink() {
        std::fs::remove_file(&program)?;
    }
    symlink(&spec.program, &program)?;
    spec.program = program;
    supervisor.start(spec).await
}

fn configuration(layout: &Layout) -> Value {
    let listeners: Vec<_> =
        (FIRST_PORT..).zip(links()).map(|(port, (name, peer, _))| listener(port, name, peer)).collect();
    let clusters = roster::ROLES.map(|role| {
        let endpoint = json!({"endpoint": {"address": address(layout.ports.grpc(role))}});
        json!({
            "name": role.name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": role.name, "endpoints": [{"lb_endpoints": [endpoint]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
        })
    });
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

/// Names a caller at this port, and passes its requests to the cluster of the role that it calls.
pub(super) fn listener(port: u16, name: &str, peer: Role) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": peer.name, "timeout": "0s"}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "sidecar",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [
            {"name": "all", "domains": ["*"], "request_headers_to_add": caller(name), "routes": [route]},
        ]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    json!({
        "name": format!("{name}-{}", peer.name),
        "address": address(port),
        "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
        ]}],
    })
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}
