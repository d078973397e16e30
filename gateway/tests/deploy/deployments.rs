//! What the gateway of each deployment runs with: the variables of its image and its own, and its
//! file, read as `skein serve` reads them. Ports, probes, volumes and the scrape configuration must
//! be made for just that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use skein_gateway::config::{Config, Sources};

use super::{assert_none, read, repository};

const IMAGE: &str = "deploy/docker/Dockerfile";

/// The variable that names the file.
const FILE: &str = "SKEIN_CONFIG";

/// What the program finds around it.
#[derive(Clone, Default)]
struct Surroundings {
    variables: BTreeMap<String, String>,
    /// Path for the program, path in the repository.
    files: BTreeMap<String, String>,
}

impl Surroundings {
    fn file(mut self, inside: &str, file: impl Into<String>) -> Self {
        self.files.insert(inside.into(), file.into());
        self
    }

    /// The configuration, and what of the file has no effect because a variable says otherwise.
    fn configuration(mut self) -> (Config, Vec<String>) {
        let path = self.variables.remove(FILE).expect("no file is named");
        let file = self.files.get(&path).unwrap_or_else(|| panic!("there is no {path}"));
        let variables = self.variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let sources = Sources::new().file(&repository().join(file)).unwrap();
        let loaded = sources.environment(variables).read().unwrap();

        let table: toml::Table = toml::from_str(&read(file)).unwrap();
        let keys = table.iter().flat_map(|(name, value)| match value.as_table() {
            Some(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
            None => vec![name.clone()],
        });
        let overridden = keys.filter_map(|key| {
            let place = loaded.place(&key);
            place.starts_with("environment").then(|| format!("{file}: {place} wins over {key}"))
        });
        let overridden = overridden.collect();
        (loaded.config, overridden)
    }

    fn config(self) -> Config {
        let (config, overridden) = self.configuration();
        assert_none(&overridden);
        config
    }
}

/// The instructions of the image's last stage: name, arguments.
fn instructions() -> Vec<(String, String)> {
    let text = read(IMAGE);
    let lines: String =
        text.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |all, line| {
            match line.strip_suffix('\\') {
                Some(begun) => all + begun,
                None => all + line + "\n",
            }
        });
    let all = lines.lines().filter_map(|line| line.split_once(' '));
    let all: Vec<_> = all.map(|(name, rest)| (name.into(), rest.trim().into())).collect();
    let last = all.iter().rposition(|(name, _): &(String, String)| name == "FROM").unwrap();
    all[last..].to_vec()
}

fn arguments(instruction: &str) -> Vec<String> {
    let all = instructions().into_iter().filter(|(name, _)| name == instruction);
    all.flat_map(|(_, rest)| rest.split_whitespace().map(String::from).collect::<Vec<_>>())
        .collect()
}

fn image() -> Surroundings {
    let mut image = Surroundings::default();
    for variable in arguments("ENV") {
        let (name, value) = variable.split_once('=').unwrap();
        image.variables.insert(name.into(), value.into());
    }
    for (_, rest) in instructions().iter().filter(|(name, _)| name == "COPY") {
        if let Some((from, to)) = rest.split_once(' ').filter(|(from, _)| !from.starts_with("--")) {
            image.files.insert(to.into(), from.into());
        }
    }
    image
}

fn yaml(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What is there, or else which pointer leads nowhere.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {value}"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_else(|| panic!("{pointer} is no text"))
}

/// The one of a list whose `field` is `wanted`.
fn one<'a>(list: &'a Value, field: &str, wanted: &str) -> &'a Value {
    let found = list.as_array().into_iter().flatten().find(|item| item[field] == wanted);
    found.unwrap_or_else(|| panic!("no {field} is {wanted} in {list}"))
}

/// Packets and probes come to an address that a container does not know before.
#[track_caller]
fn assert_reached_from_outside(address: SocketAddr, port: u16) {
    assert!(address.ip().is_unspecified(), "{address}");
    assert_eq!(address.port(), port);
}

#[test]
fn the_image_serves_where_it_says() {
    let config = image().config();
    let udp = format!("{}/udp", config.listen.port());
    let admin = config.admin.listen.unwrap();
    assert_reached_from_outside(config.listen, config.listen.port());
    assert!(admin.ip().is_loopback(), "{admin}");
    assert_eq!(arguments("EXPOSE"), [udp, format!("{}/tcp", admin.port())]);
    assert_eq!(arguments("VOLUME"), [format!("[{:?}]", config.data)]);
    assert_eq!(arguments("WORKDIR"), [config.data.to_str().unwrap()]);
    let health = arguments("HEALTHCHECK").join(" ");
    assert!(health.ends_with(r#"CMD ["/usr/local/bin/skein", "ctl", "alive"]"#), "{health}");
}

/// A file of the operator's own decides, whatever the image has.
#[test]
fn a_file_that_is_mounted_wins_over_the_image() {
    assert_eq!(image().variables.keys().collect::<Vec<_>>(), [FILE]);
    let mut bad = image();
    bad.variables.insert("SKEIN_ADMIN__LISTEN".into(), "127.0.0.1:7844".into());
    let (_, overridden) = bad.configuration();
    assert_eq!(overridden.len(), 1, "{overridden:?}");
    assert!(overridden[0].ends_with("SKEIN_ADMIN__LISTEN wins over admin.listen"));
}

#[test]
fn pods_are_probed_scraped_and_reached_where_they_serve() {
    let base = yaml("deploy/kubernetes/base/gateway.yaml");
    let set = one(&Value::Array(base), "kind", "StatefulSet").clone();
    let gateway = at(&set, "/spec/template/spec/containers/0");
    let patch = yaml("deploy/kubernetes/scylla/gateway.yaml").remove(0);
    let patched = at(&patch, "/spec/template/spec/containers/0");
    assert_eq!(patched["name"], gateway["name"]);

    let mount = |name: &str| one(&gateway["volumeMounts"], "name", name);
    assert_eq!(text(mount("config"), "/subPath"), "skein.toml");
    for (variant, containers) in [("base", vec![gateway]), ("scylla", vec![gateway, patched])] {
        let file = format!("deploy/kubernetes/{variant}/skein.toml");
        let mut pod = image().file(text(mount("config"), "/mountPath"), file);
        for set in containers.iter().filter_map(|container| container["env"].as_array()).flatten() {
            pod.variables.insert(text(set, "/name").into(), text(set, "/value").into());
        }
        let config = pod.config();

        let port = |name: &str| {
            let port = one(&gateway["ports"], "name", name);
            (at(port, "/containerPort").as_u64().unwrap().try_into().unwrap(), &port["protocol"])
        };
        let (quic, protocol) = port("quic");
        assert_eq!(protocol, "UDP");
        assert_reached_from_outside(config.listen, quic);
        let (admin, protocol) = port("admin");
        assert_eq!(protocol, "TCP");
        assert_reached_from_outside(config.admin.listen.unwrap(), admin);
        assert_eq!(config.data, Path::new(text(mount("data"), "/mountPath")));
        let tls = Path::new(text(mount("tls"), "/mountPath"));
        assert_eq!(config.tls.cert, Some(tls.join("tls.crt")));
        assert_eq!(config.tls.key, Some(tls.join("tls.key")));
        let auth = Path::new(text(mount("auth"), "/mountPath"));
        assert_eq!(config.auth.key_file, Some(auth.join("token-key.pub.pem")));
        if let Some(password) = config.scylla.password_file {
            let scylla = one(&patched["volumeMounts"], "name", "scylla");
            assert_eq!(password, Path::new(text(scylla, "/mountPath")).join("password"));
        }
    }

    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(text(gateway, &format!("/{probe}/httpGet/path")), "/livez");
    }
    assert_eq!(text(gateway, "/readinessProbe/httpGet/path"), "/readyz");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(text(gateway, &format!("/{probe}/httpGet/port")), "admin");
    }
    let services = Value::Array(yaml("deploy/kubernetes/base/services.yaml"));
    for service in services.as_array().unwrap() {
        for port in at(service, "/spec/ports").as_array().unwrap() {
            let target = one(&gateway["ports"], "name", text(port, "/targetPort"));
            assert_eq!(
                (&port["port"], &port["protocol"]),
                (&target["containerPort"], &target["protocol"])
            );
        }
    }
    let network = yaml("deploy/kubernetes/base/network.yaml").remove(0);
    for rule in at(&network, "/spec/ingress").as_array().unwrap() {
        for port in at(rule, "/ports").as_array().unwrap() {
            let named = one(&gateway["ports"], "name", text(port, "/port"));
            assert_eq!(port["protocol"], named["protocol"]);
        }
    }
    // The scrape configuration that the operator is given.
    assert!(
        read("docs/operations.md").contains("container_port_name], regex: admin, action: keep")
    );
}

#[test]
fn the_composition_is_scraped_and_reached_where_it_serves() {
    let composition = yaml("deploy/compose/compose.yaml").remove(0);
    let gateway = at(&composition, "/services/gateway");
    let source = one(&gateway["configs"], "source", "skein");
    let file = text(&composition, "/configs/skein/file").trim_start_matches("./");
    let mut service = image().file(text(source, "/target"), format!("deploy/compose/{file}"));
    for (name, value) in gateway["environment"].as_object().into_iter().flatten() {
        service.variables.insert(name.clone(), value.as_str().unwrap().into());
    }
    let config = service.config();

    let (listen, admin) = (config.listen.port(), config.admin.listen.unwrap());
    assert_reached_from_outside(config.listen, listen);
    assert_reached_from_outside(admin, admin.port());
    let (udp, tcp) = (format!("{listen}:{listen}/udp"), format!("127.0.0.1:{0}:{0}", admin.port()));
    assert_eq!(gateway["ports"], serde_json::json!([udp, tcp]));
    assert_eq!(
        gateway["volumes"],
        serde_json::json!([format!("gateway:{}", config.data.display())])
    );
    let ready = ["CMD", "/usr/local/bin/skein", "ctl", "ready"];
    assert_eq!(at(gateway, "/healthcheck/test"), &serde_json::json!(ready));

    let prometheus = yaml("deploy/compose/prometheus.yaml").remove(0);
    let target = text(&prometheus, "/scrape_configs/0/static_configs/0/targets/0");
    assert_eq!(target, format!("gateway:{}", admin.port()));
}

#[test]
fn the_service_has_its_data_where_its_unit_lets_it_write() {
    let unit = read("deploy/systemd/skein.service");
    let all = |name: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
    };
    let path = "/etc/skein/skein.toml";
    assert_eq!(all("ExecStart"), [format!("/usr/local/bin/skein serve --config {path}")]);
    let mut service = Surroundings::default().file(path, "deploy/systemd/skein.toml");
    service.variables.insert(FILE.into(), path.into());
    for variable in all("Environment") {
        let (name, value) = variable.split_once('=').unwrap();
        service.variables.insert(name.into(), value.into());
    }
    let config = service.config();
    assert_eq!(all("WorkingDirectory"), [config.data.to_str().unwrap()]);
    assert_eq!(config.data, Path::new("/var/lib").join(all("StateDirectory")[0]));
    assert!(config.listen.ip().is_unspecified(), "{}", config.listen);

    // What the operator is told to ask, on the machine itself.
    let admin = config.admin.listen.unwrap();
    assert!(admin.ip().is_loopback(), "{admin}");
    let page = read("docs/operations.md");
    let asked: Vec<_> = page.split("http://").skip(1).map(|rest| rest.split('/').next()).collect();
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(asked.iter().all(|address| *address == Some(&admin.to_string())), "{asked:?}");
}
