//! Variants of the edge: Envoys whose configuration is that of the running one, with some of it removed or replaced.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use stack::layout::Layout;
use stack::parts;
use stack::supervisor::{Command, Supervisor};

use super::sidecar;

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
const TRANSCODER: &str = "envoy.filters.http.grpc_json_transcoder";
const ROUTER: &str = "envoy.filters.http.router";
const EXACT_LIMITS: &str = "envoy.filters.http.ratelimit";

/// The configuration of an Envoy, whose first listener is for clients without TLS.
#[derive(Debug, Clone)]
pub(super) struct Edge(Value);

impl Edge {
    /// The configuration of the Envoy that runs.
    pub(super) async fn of(layout: &Layout) -> Result<Self> {
        let url = format!("http://127.0.0.1:{}/config_dump", layout.ports.envoy_admin());
        let dump: Value = serde_json::from_str(&reqwest::get(&url).await?.text().await?)?;
        let configs = dump["configs"].as_array().context("a dump has parts")?;
        let bootstrap =
            configs.iter().find_map(|config| config.get("bootstrap")).context("a dump has the bootstrap")?;
        let mut edge = Self(bootstrap.clone());
        // Nobody asks for it, and its port is taken.
        edge.0.as_object_mut().context("the bootstrap is an object")?.remove("admin");
        let port = layout.ports.edge();
        array(&mut edge.0["static_resources"]["listeners"])?
            .retain(|it| it["address"]["socket_address"]["port_value"] == port);
        let chains = &edge.0["static_resources"]["listeners"][0]["filter_chains"];
        ensure!(chains[0]["filters"].is_array(), "the edge has no listener at port {port}");
        Ok(edge)
    }

    fn chain(&mut self) -> &mut Value {
        &mut self.0["static_resources"]["listeners"][0]["filter_chains"][0]
    }

    fn connection_manager(&mut self) -> Result<&mut Value> {
        let filters = array(&mut self.chain()["filters"])?;
        let manager = filters.iter_mut().find(|filter| filter["name"] == CONNECTION_MANAGER);
        Ok(&mut manager.context("the listener has a connection manager")?["typed_config"])
    }

    /// Without any filter but the transcoder and the router, and without the settings of routes for others.
    pub(super) fn only_transcoding(mut self) -> Result<Self> {
        array(&mut self.chain()["filters"])?.retain(|filter| filter["name"] == CONNECTION_MANAGER);
        self.keep(|name| name == TRANSCODER || name == ROUTER)?;
        let filters = array(&mut self.connection_manager()?["http_filters"])?;
        ensure!(filters.len() == 2, "{} filters are left", filters.len());
        Ok(self)
    }

    /// Without the filter that asks the gateway, so that the limits of this Envoy decide.
    pub(super) fn without_exact_limits(mut self) -> Result<Self> {
        let count = |edge: &mut Self| Ok(array(&mut edge.connection_manager()?["http_filters"])?.len());
        let before = count(&mut self)?;
        self.keep(|name| name != EXACT_LIMITS)?;
        let after: Result<usize> = count(&mut self);
        ensure!(after? + 1 == before, "the edge has no filter {EXACT_LIMITS}");
        Ok(self)
    }

    /// Keeps some of the HTTP filters.
    fn keep(&mut self, is_kept: impl Fn(&str) -> bool) -> Result<()> {
        let manager = self.connection_manager()?;
        array(&mut manager["http_filters"])?.retain(|filter| filter["name"].as_str().is_some_and(&is_kept));
        for host in array(&mut manager["route_config"]["virtual_hosts"])? {
            keep_settings(host, &is_kept);
            array(&mut host["routes"])?.iter_mut().for_each(|route| keep_settings(route, &is_kept));
        }
        Ok(())
    }

    fn cluster(&mut self, name: &str) -> Result<&mut Value> {
        let clusters = array(&mut self.0["static_resources"]["clusters"])?;
        let cluster = clusters.iter_mut().find(|cluster| cluster["name"] == name);
        cluster.with_context(|| format!("the edge has no cluster {name}"))
    }

    /// With the product service at this port.
    pub(super) fn with_product_at(mut self, port: u16) -> Result<Self> {
        let cluster = self.cluster(roster::PRODUCT.name)?;
        let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        let address = endpoint.pointer_mut("/address/socket_address/port_value").context("an endpoint has a port")?;
        *address = json!(port);
        Ok(self)
    }

    /// With plain text to the role of a cluster, and the header by which a sidecar would name the edge as the caller.
    pub(super) fn in_mesh(mut self, cluster: &str) -> Result<Self> {
        let removed = self.cluster(cluster)?.as_object_mut().and_then(|it| it.remove("transport_socket"));
        ensure!(removed.is_some(), "the edge has no TLS to {cluster}");
        for host in array(&mut self.connection_manager()?["route_config"]["virtual_hosts"])? {
            host["request_headers_to_add"] = sidecar::caller("edge");
        }
        Ok(self)
    }

    /// With another port, at which a role without certificates reaches the user service.
    pub(super) fn with_user_at(mut self, port: u16) -> Result<Self> {
        let listener = sidecar::listener(port, roster::PRODUCT.name, roster::USER);
        array(&mut self.0["static_resources"]["listeners"])?.push(listener);
        Ok(self)
    }

    /// Starts an Envoy with this configuration, at this port. Returns its process id.
    pub(super) async fn start(
        mut self,
        supervisor: &mut Supervisor,
        layout: &Layout,
        name: &'static str,
        port: u16,
    ) -> Result<u32> {
        self.0["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = json!(port);
        let file = write(layout, &format!("envoy-{port}.json"), &self.0)?;
        supervisor.start(parts::envoy_with(layout, name, &file, port)?).await?;
        // A process that is not paused is not affected, and its id is the response.
        supervisor.send(name, Command::Resume).await
    }
}

/// Removes settings of a route or a virtual host for filters that are not kept.
fn keep_settings(it: &mut Value, is_kept: impl Fn(&str) -> bool) {
    if let Some(settings) = it.get_mut("typed_per_filter_config").and_then(Value::as_object_mut) {
        settings.retain(|filter, _| is_kept(filter));
    }
}

fn array(value: &mut Value) -> Result<&mut Vec<Value>> {
    value.as_array_mut().context("it is an array of Envoy's configuration")
}

/// Writes a configuration. Returns its path.
pub(super) fn write(layout: &Layout, name: &str, configuration: &Value) -> Result<PathBuf> {
    std::fs::create_dir_all(&layout.home)?;
    let file = layout.home.join(name);
    std::fs::write(&file, configuration.to_string())?;
    Ok(file)
}
