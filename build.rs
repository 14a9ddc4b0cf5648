//! proto/ -> messages, tonic servers and clients, validation, and the descriptor set with the policies.
//! An RPC without a policy, a public one without an HTTP binding, or one whose request has no bound, does not build.

#[path = "build/events.rs"]
mod events;
#[path = "build/requests.rs"]
mod requests;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, MethodDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};
use requests::Requests;

fn main() -> Result<(), Box<dyn Error>> {
    for folder in ["proto", "proto-google"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new("proto".into()));
    resolver.add(IncludeFileResolver::new("proto-google".into()));
    resolver.add(GoogleFileResolver::new());
    resolver.add(Rules);
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true).open_files(sources(Path::new("proto"))?)?;
    // No contract imports it, but the edge converts error details to JSON only if it knows their types.
    compiler.open_file("google/rpc/error_details.proto")?;

    // Encoded by the compiler: encoding the typed set would drop the options.
    let bytes = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(bytes.as_slice())?;
    check_policies(&pool)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.binpb"), &bytes)?;

    let mut set = compiler.file_descriptor_set();
    set.file.retain(|file| !file.name().starts_with("buf/") && !file.name().starts_with("google/rpc/"));
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    let generator = tonic_prost_build::configure().codec_path("crate::codec::Validated");
    generator.include_file("packages.rs").compile_fds_with_config(set, config)?;

    prost_protovalidate_build::Builder::new().file_descriptor_set_bytes(bytes).fail_on_runtime_only(true).compile()?;
    let rules = std::fs::read_to_string(out.join("validate_impl.rs"))?;
    std::fs::write(out.join("contract_impl.rs"), write_contracts(&pool, &rules)?)?;
    Ok(())
}

/// Resolves `buf/validate/validate.proto` from the crate that contains it.
struct Rules;

impl FileResolver for Rules {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let file = prost_protovalidate_types::DESCRIPTOR_POOL.get_file_by_name(name);
        let file = file.ok_or_else(|| protox::Error::file_not_found(name))?;
        File::decode_file_descriptor_proto(file.encode_to_vec().as_slice()).map_err(protox::Error::new)
    }
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let ours = pool.services().filter(|service| service.full_name().starts_with("souk."));
    ours.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn check_policies(pool: &DescriptorPool) -> Result<(), Box<dyn Error>> {
    const SERVICE: i32 = 4;
    let extension = |name: &str| pool.get_extension_by_name(name).ok_or_else(|| format!("{name} is not defined"));
    let (policy, http) = (extension("souk.policy.v1.policy")?, extension("google.api.http")?);
    for method in methods(pool) {
        let (name, options) = (method.full_name(), method.options());
        let value = options.get_extension(&policy);
        let number = |field: &str| {
            let field = value.as_message().and_then(|policy| policy.get_field_by_name(field)?.as_enum_number());
            field.filter(|number| *number != 0)
        };
        let access = number("access").ok_or_else(|| format!("{name} has no access in its policy"))?;
        number("idempotency").ok_or_else(|| format!("{name} has no idempotency in its policy"))?;
        let internal = access == SERVICE || name.starts_with("souk.ops.");
        if internal == options.has_extension(&http) {
            return Err(format!("{name}: internal RPCs have no HTTP binding, all others have one").into());
        }
        if internal == number("rate_class").is_some() {
            return Err(format!("{name}: internal RPCs have no rate class, all others have one").into());
        }
    }
    Ok(())
}

/// The rules are enforced for requests; responses are our own and trusted.
fn write_contracts(pool: &DescriptorPool, rules: &str) -> Result<String, Box<dyn Error>> {
    let reader = Requests::new(pool)?;
    // Each message with the code of its checks; none for a response.
    let mut messages = BTreeMap::new();
    for method in methods(pool) {
        messages.entry(method.output().full_name().to_owned()).or_insert_with(String::new);
        let (name, request) = (method.input().full_name().to_owned(), reader.code(&method.input())?);
        let path = rust_path(&name);
        let mut code = format!("const FIELDS: &'static [Field] = &[{}];", request.table);
        if rules.contains(&format!("for {path} {{")) {
            write!(code, "fn check(&self) -> Result<(), prost_protovalidate::ValidationError> {{")?;
            write!(code, " prost_protovalidate::Validate::validate(self) }}")?;
        }
        if !request.normalize.is_empty() {
            write!(code, "fn normalize(&mut self) {{ {} }}", request.normalize)?;
        }
        messages.insert(name, code);
    }
    let mut code = String::new();
    for (message, request) in messages {
        let package = message.rsplit_once('.').ok_or("a message without a package")?.0;
        let domain = package.rsplit_once('.').ok_or("a package without a version")?.0;
        let path = rust_path(&message);
        write!(code, "impl crate::codec::Contract for {path} {{ const DOMAIN: &'static str = \"{domain}\";")?;
        writeln!(code, "{request}}}")?;
    }
    code.push_str(&events::write_events(pool)?);
    Ok(code)
}

fn rust_path(message: &str) -> String {
    message.replace(".type.", ".r#type.").replace('.', "::")
}
