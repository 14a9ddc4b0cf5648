//! k8s/ agrees with the roster and with the contracts: which roles there are, their ports, and who calls whom.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use prost_reflect::MethodDescriptor;
use roster::Role;

use super::{methods, read, root};

/// The access of an RPC for anybody, `ACCESS_PUBLIC`.
const PUBLIC: i32 = 1;
/// The access of an RPC between services only, `ACCESS_SERVICE`.
const SERVICE: i32 = 4;
/// What every role polls from the user service.
const PAGES: [&str; 2] = ["/.well-known/jwks.json", "/internal/revoked"];
const MESH: &str = "overlays/istio/roles.yaml";

fn k8s(path: &str) -> PathBuf {
    root().join("k8s").join(path)
}

/// The names of roles, in the order of the roster.
fn names() -> impl Iterator<Item = &'static str> {
    roster::ROLES.into_iter().map(|role| role.name)
}

fn package(role: Role) -> String {
    format!("{}.v1", role.domain)
}

/// An RPC that other roles call.
struct Called {
    path: String,
    /// Whether the edge does not call it.
    is_closed: bool,
    callers: Vec<&'static str>,
}

fn called(role: Role) -> Vec<Called> {
    let of_role = methods().into_iter().filter(|method| method.parent_service().package_name() == package(role));
    of_role.filter_map(|method| Called::read(&method)).collect()
}

impl Called {
    /// None if its callers are no roles.
    fn read(method: &MethodDescriptor) -> Option<Self> {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let (access, callers) = policy(method)?;
        assert!([PUBLIC, SERVICE].contains(&access) || callers.is_empty(), "{path} needs a token, which no role has");
        (access == SERVICE || !callers.is_empty()).then_some(Self { path, is_closed: access == SERVICE, callers })
    }
}

/// The access of an RPC, and which roles of the roster are its callers.
fn policy(method: &MethodDescriptor) -> Option<(i32, Vec<&'static str>)> {
    let extension = method.parent_pool().get_extension_by_name("souk.policy.v1.policy").expect("it is defined");
    let options = method.options();
    let policy = options.get_extension(&extension);
    let policy = policy.as_message().expect("every RPC has a policy");
    let access = policy.get_field_by_name("access")?.as_enum_number()?;
    let listed = policy.get_field_by_name("callers")?;
    let listed: Vec<_> = listed.as_list()?.iter().filter_map(|caller| caller.as_str()).collect();
    Some((access, names().filter(|name| listed.contains(name)).collect()))
}

/// Those that call a role, beside the edge, which calls all of them: by the contracts, and for the keys of access tokens, which
/// the user service itself polls, too.
fn callers_of(role: Role) -> Vec<&'static str> {
    let called = called(role);
    let calls = |name: &str| called.iter().any(|rpc| rpc.callers.contains(&name));
    names().filter(|name| role == roster::USER || calls(name)).collect()
}

/// A line `<key>: [a, b]` or `<key>: a` of a role.yaml.
fn values(folder: &str, key: &str) -> Vec<String> {
    let text = read(&k8s(&format!("base/{folder}/role.yaml")));
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let line = line.unwrap_or_else(|| panic!("{folder}/role.yaml has no `{key}`"));
    line.trim_matches(['[', ']']).split(", ").map(str::to_owned).collect()
}

fn set<T: Into<String>>(values: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    values.into_iter().map(Into::into).collect()
}

#[test]
fn every_role_is_deployed_with_its_port_and_its_callers() {
    let base = read(&k8s("base/kustomization.yaml"));
    for role in roster::ROLES {
        assert!(base.contains(&format!("\n- {}\n", role.name)), "k8s/base/kustomization.yaml lacks {}", role.name);
        assert_eq!(values(role.name, "port"), [role.port().to_string()], "{}", role.name);
        let callers = callers_of(role).into_iter().chain(["edge"]);
        assert_eq!(set(values(role.name, "callers")), set(callers), "callers of {}", role.name);
    }
}

/// What production has to replace is in its overlay, where docs/operations.md sends who deploys it.
#[test]
fn every_placeholder_is_in_the_overlay_of_production() {
    let overlay =
        ["kustomization.yaml", "external.env"].map(|file| read(&k8s(&format!("overlays/production/{file}")))).concat();
    let mut missing = Vec::new();
    for file in super::files(&root().join("k8s/base"), ".env") {
        let text = read(&file);
        let placeholders =
            text.lines().filter(|line| line.contains(".example")).filter_map(|line| line.split_once('='));
        missing.extend(
            placeholders.map(|(name, _)| name.to_owned()).filter(|name| !overlay.contains(&format!("{name}="))),
        );
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_role_may_call_its_peers_and_no_others() {
    assert_eq!(set(values("edge", "peers")), set(names()));
    for role in roster::ROLES {
        let peers = roster::ROLES.into_iter().filter(|peer| callers_of(*peer).contains(&role.name));
        let settings = [read(&k8s("base/souk.env")), read(&k8s(&format!("base/{}/settings.env", role.name)))].concat();
        let mut peers = set(peers.map(|peer| peer.name));
        if role.has_database {
            peers.insert("postgres".to_owned());
        }
        let folder = if role == roster::GATEWAY { root().to_owned() } else { root().join("services") };
        let source = |file| read(&folder.join(role.name).join("src").join(file));
        if role.has_database
            && [".publish(&service.db", ".consume(&service.db"].iter().any(|it| source("service.rs").contains(it))
        {
            peers.insert("kafka".to_owned());
        }
        if source("lib.rs").contains("redis: Prefixed<redis::Config>") {
            peers.insert("redis".to_owned());
        }
        if settings.contains("_PROVIDER_URL=") {
            peers.insert("provider".to_owned());
        }
        if settings.contains("_SMTP_HOST=") {
            peers.insert("mail".to_owned());
        }
        assert_eq!(set(values(role.name, "peers")), peers, "peers of {}", role.name);
    }
}

/// Istio's objects of every role.
fn mesh() -> String {
    let mut text = "# Written by `make reference` from the contracts and the roster.\n".to_owned();
    roster::ROLES.into_iter().for_each(|role| text.push_str(&mesh_of(role)));
    text
}

fn mesh_of(role: Role) -> String {
    let (name, port, called) = (role.name, role.port(), called(role));
    let account = |name: &&str| format!("cluster.local/ns/souk/sa/{name}");
    let accounts = |callers: &[&str]| callers.iter().map(account).collect::<Vec<_>>().join(", ");
    let mut rules = format!("  - from: [{{source: {{principals: [{}]}}}}]\n", accounts(&["edge"]));
    let closed: Vec<_> = called.iter().filter(|rpc| rpc.is_closed).map(|rpc| rpc.path.as_str()).collect();
    let but = if closed.is_empty() { String::new() } else { format!(", notPaths: [{}]", closed.join(", ")) };
    writeln!(rules, "    to: [{{operation: {{ports: [\"{port}\"]{but}}}}}]").expect("a String can be written");
    let pages = (role == roster::USER).then(|| (PAGES.join(", "), callers_of(role)));
    let rpcs = called.into_iter().map(|rpc| (rpc.path, rpc.callers));
    for (paths, callers) in rpcs.chain(pages).filter(|(_, callers)| !callers.is_empty()) {
        writeln!(rules, "  - from: [{{source: {{principals: [{}]}}}}]", accounts(&callers))
            .expect("a String can be written");
        writeln!(rules, "    to: [{{operation: {{ports: [\"{port}\"], paths: [{paths}]}}}}]")
            .expect("a String can be written");
    }
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app.kubernetes.io/name: {name}}}}}
  action: ALLOW
  rules:
{rules}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {name}.souk.svc.cluster.local
  trafficPolicy:
    tls: {{mode: ISTIO_MUTUAL}}
    loadBalancer: {{simple: LEAST_REQUEST}}
  subsets:
  - {{name: stable, labels: {{track: stable}}}}
  - {{name: canary, labels: {{track: canary}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}.souk.svc.cluster.local]
  http:
  # The edge and the callers retry themselves.
  - retries: {{attempts: 0}}
    route:
    - {{destination: {{host: {name}.souk.svc.cluster.local, subset: stable}}, weight: 100}}
    - {{destination: {{host: {name}.souk.svc.cluster.local, subset: canary}}, weight: 0}}
"
    )
}

/// `make reference` sets `SOUK_WRITE`.
#[test]
fn the_mesh_admits_the_callers_of_the_contracts() {
    let (file, text) = (k8s(MESH), mesh());
    if std::env::var_os("SOUK_WRITE").is_some() {
        std::fs::write(&file, &text).expect("it can be written");
    }
    assert!(read(&file) == text, "k8s/{MESH} differs from the contracts: run `make reference`");
}

/// A laptop's servers are the same with Docker and with Kubernetes. Lines of k8s/ such as `- {name: redis, newTag: 7.0.15-bookworm}`.
/// Scripts use an image that is there anyway.
#[test]
fn servers_have_the_versions_of_compose() {
    let compose = read(&root().join("docker-compose.yml"));
    let mut compared = 0;
    for file in super::files(&root().join("k8s"), "kustomization.yaml") {
        for line in read(&file).lines().filter_map(|line| line.strip_prefix("- {name: ")?.strip_suffix('}')) {
            let Some((name, tag)) = line.split_once(", newTag: ") else { continue };
            if !name.starts_with("souk") {
                assert!(compose.contains(&format!("image: {name}:{tag}\n")), "{}: {name}:{tag}", file.display());
                compared += 1;
            }
        }
    }
    for script in super::files(&root().join("dev/stack/compose"), ".sh") {
        let text = read(&script);
        for image in text.split_whitespace().filter(|word| word.starts_with("postgres:")) {
            assert!(compose.contains(&format!("image: {image}\n")), "{}: {image}", script.display());
            compared += 1;
        }
    }
    assert!(compared >= 6, "{compared} images have a version");
}
