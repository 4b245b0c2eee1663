use std::collections::BTreeMap;
use std::io::Write as _;

use super::*;

fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    Config::load_with(Some(file.path()), Environment::default().source(Some(environment)))
}

fn refusal(toml: &str, environment: &[(&str, &str)]) -> String {
    load(toml, environment).unwrap_err().to_string()
}

/// The keys of the default file, in the form `section.key`, each with the comment above it.
fn documented() -> BTreeMap<String, String> {
    let (mut section, mut comment, mut keys) = (String::new(), String::new(), BTreeMap::new());
    for line in include_str!("../../config/default.toml").lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.insert(format!("{section}.{key}"), std::mem::take(&mut comment));
        } else {
            comment.clear();
        }
    }
    keys
}

#[test]
fn defaults_are_valid() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.database.url.expose(), "sqlite://windfall.db");
    assert!(config.database.migrate);
    assert!(config.auth.hs256_secret.is_none());
    assert!(config.auth.public_keys.is_none());
    assert_eq!((config.auth.issuer.as_str(), config.auth.audience.as_str()), ("windfall", "windfall"));
}

/// A key that is missing in the file has no default, so reading it fails. A key that is missing in the code is refused as
/// unknown. So this test only checks that the file loads by itself, and that each comment begins with the variable of its
/// key.
#[test]
fn every_key_is_documented() {
    load("", &[]).unwrap();
    let keys = documented();
    assert!(keys.len() >= 31, "{keys:?}");
    for (key, comment) in keys {
        assert!(comment.trim_start().starts_with(&format!("{}:", variable(&key))), "{key}: {comment}");
    }
}

/// Sets every key by its environment variable. Keys that need no special value get 2048.
#[test]
fn every_key_can_come_from_the_environment() {
    let value = |key: &str| match key {
        "http.listen" | "http.internal_listen" => "0.0.0.0:0",
        "http.trusted_proxies" => "10.0.0.0/8, ::1",
        "database.url" => "postgres://user:hidden@db.example/shop",
        "database.migrate" => "false",
        "database.pooler" => "true",
        "auth.hs256_secret_previous" => "abcdefghijklmnopqrstuvwxyz012345",
        // Each has a test of its own.
        key if key.ends_with("_file") => "",
        "database.connections" => "200",
        "http.allowed_origins" => "https://shop.example, http://localhost:3000",
        "http.introspection" | "http.graphiql" => "true",
        "http.documents" => "documents",
        "limits.customer_burst_points" | "limits.shop_burst_points" => "60001",
        "limits.document_aliases" => "60",
        "limits.document_directives" => "40",
        "limits.document_depth" => "20",
        "writer.writers" => "3",
        "auth.hs256_secret" => "01234567890123456789012345678901",
        "auth.jwks" => "https://issuer.example/keys",
        "auth.public_key_pem" => "",
        "auth.issuer" | "auth.audience" => "007",
        "auth.leeway_seconds" => "9",
        "log.filter" => "debug",
        "cache.l1_bytes" => "1048578",
        "cache.max_staleness" => "0.25",
        "log.otlp_endpoint" => "http://collector.example:4318/v1/traces",
        "redis.url" => "redis://user:hidden@cache.example:6380/3",
        "writer.batch_items" => "500",
        "writer.fold_purchases" => "501",
        "writer.queue_bytes" => "1048577",
        "http.unfinished_bytes" => "1048579",
        "kafka.brokers" => "one.example:9092,other.example:9092",
        "kafka.facts_topics" => "orders, returns",
        "kafka.group_protocol" => "consumer",
        "kafka.events_topic" => "points",
        "kafka.balances_topic" => "balances",
        "kafka.buffer_bytes" => "1048580",
        "kafka.tls" => "true",
        "kafka.events_transactional" => "false",
        "kafka.sasl_mechanism" => "SCRAM-SHA-256",
        _ => "2048",
    };
    let variables: Vec<_> = documented().into_keys().map(|key| (variable(&key), value(&key))).collect();
    let environment: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let config = load("", &environment).unwrap();

    assert_eq!(config.http.listen.port(), 0);
    assert_eq!(config.http.request_timeout, Duration::from_millis(2048));
    assert_eq!(config.http.head_timeout, Duration::from_millis(2048));
    assert_eq!(config.http.write_timeout, Duration::from_millis(2048));
    assert_eq!(config.http.stop_timeout, Duration::from_millis(2048));
    assert_eq!((config.http.body_limit_bytes, config.http.connections), (2048, 2048));
    assert_eq!(config.http.internal_listen.map(|listen| listen.port()), Some(0));
    assert_eq!(config.http.unfinished_bytes, 1_048_579);
    assert_eq!((config.http.sockets_per_subject, config.http.sockets_per_address), (2048, 2048));
    assert_eq!(config.http.trusted_proxies, ["10.0.0.0/8", "::1"].map(|block| block.parse().unwrap()));
    assert_eq!(config.http.allowed_origins, ["https://shop.example", "http://localhost:3000"]);
    assert!(config.http.introspection && config.http.graphiql);
    assert_eq!(config.http.documents.as_deref(), Some(Path::new("documents")));
    for rate in [&config.limits.customer, &config.limits.shop] {
        assert_eq!((rate.points_per_second.get(), rate.burst_points.get()), (2048, 60_001));
    }
    assert_eq!((config.limits.concurrent_requests, config.limits.streams), (2048, 2048));
    assert_eq!((config.limits.document_tokens, config.limits.document_aliases), (2048, 60));
    assert_eq!((config.limits.document_directives, config.limits.document_depth), (40, 20));
    assert!(!config.database.migrate && config.database.pooler);
    assert_eq!(config.database.connections, 200);
    assert_eq!(config.database.statement_timeout, Duration::from_millis(2048));
    assert_eq!(config.database.idle_transaction_timeout, Duration::from_millis(2048));
    assert_eq!(config.writer.queue_items, 2048);
    assert_eq!(config.writer.queue_bytes, 1_048_577);
    assert_eq!(config.writer.batch_items, 500);
    assert_eq!(config.writer.fold_purchases, 501);
    assert!(config.writer.sets_writers);
    assert_eq!((config.cache.l1_bytes, config.cache.max_staleness), (1_048_578, Duration::from_millis(250)));
    assert!(config.redis.servers.is_some());
    assert_eq!(config.redis.timeout, Duration::from_millis(2048));
    let kafka = config.kafka.unwrap();
    assert_eq!(kafka.brokers, "one.example:9092,other.example:9092");
    assert_eq!(kafka.facts_topics, ["orders", "returns"]);
    assert_eq!(kafka.facts_map.as_deref(), Some(Path::new("2048")));
    assert_eq!((&*kafka.group, kafka.instance_id.as_deref()), ("2048", Some("2048")));
    assert_eq!((kafka.group_protocol, kafka.buffer_bytes), (GroupProtocol::Consumer, 1_048_580));
    assert_eq!((kafka.events_topic.as_deref(), kafka.balances_topic.as_deref()), (Some("points"), Some("balances")));
    assert_eq!(kafka.session_timeout, Duration::from_millis(2048));
    assert!(kafka.security.tls.is_some() && !kafka.events_transactional);
    let sasl = kafka.security.sasl.unwrap();
    assert_eq!((sasl.mechanism, &*sasl.username, sasl.password.expose()), (SaslMechanism::ScramSha256, "2048", "2048"));
    assert_eq!(config.log.otlp_endpoint.as_deref(), Some("http://collector.example:4318/v1/traces"));
    // A text of digits keeps its leading zeros.
    assert_eq!(config.auth.hs256_secret.unwrap().expose(), "01234567890123456789012345678901");
    assert_eq!(config.auth.hs256_secret_previous.unwrap().expose(), "abcdefghijklmnopqrstuvwxyz012345");
    assert_eq!(config.auth.public_keys, Some(PublicKeys::JwksUrl("https://issuer.example/keys".to_owned())));
    assert_eq!((config.auth.issuer.as_str(), config.auth.audience.as_str()), ("007", "007"));
    assert_eq!(config.auth.leeway, Duration::from_secs(9));
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn the_environment_is_stronger_than_the_file() {
    let toml = "[http]\nlisten = '127.0.0.1:1'\n[writer]\nbatch_items = 7";
    let config = load(toml, &[("WINDFALL__HTTP__LISTEN", "127.0.0.1:2"), ("HTTP__LISTEN", "nonsense")]).unwrap();
    assert_eq!(config.http.listen.port(), 2);
    assert_eq!(config.writer.batch_items, 7);
}

#[test]
fn unknown_keys_are_refused() {
    for (toml, environment, key) in [
        ("[http]\nlisen = '127.0.0.1:1'", None, "`http.lisen`"),
        ("listen = '127.0.0.1:1'", None, "`listen`"),
        ("[empty]", None, "`empty`"),
        ("", Some("WINDFALL__AUTH__HS256SECRET"), "`auth.hs256secret`"),
        ("", Some("WINDFALL__HTTP__LISTEN__PORT"), "`http.listen`"),
    ] {
        let environment: Vec<_> = environment.iter().map(|&name| (name, "1")).collect();
        let message = refusal(toml, &environment);
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn wrong_values_are_refused_by_name_without_the_value() {
    for (name, value, allowed) in [
        ("HTTP__LISTEN", "hidden", "an address and a port"),
        ("HTTP__INTERNAL_LISTEN", "hidden", "an address and a port"),
        ("HTTP__TRUSTED_PROXIES", "10.0.0.0/8, hidden", "addresses and CIDR blocks"),
        ("HTTP__SOCKETS_PER_ADDRESS", "0", "from 1"),
        ("HTTP__REQUEST_TIMEOUT_MS", "99", "from 100 to 600000"),
        ("HTTP__ALLOWED_ORIGINS", "shop.example", "origins such as"),
        ("HTTP__ALLOWED_ORIGINS", "https://shop.example/", "origins such as"),
        ("LIMITS__SHOP_BURST_POINTS", "50000", "from 60000"),
        ("HTTP__BODY_LIMIT_BYTES", "-1", "from 1024"),
        ("HTTP__BODY_LIMIT_BYTES", "true", "from 1024"),
        ("HTTP__BODY_LIMIT_BYTES", "", "from 1024"),
        ("DATABASE__URL", "mysql://user:hidden@host/db", "sqlite://FILE or postgres://"),
        ("DATABASE__URL", "sqlite::memory:", "sqlite://FILE or postgres://"),
        ("DATABASE__URL", "", "not empty"),
        ("DATABASE__MIGRATE", "maybe", "true or false"),
        ("DATABASE__CONNECTIONS", "1.5", "from 2 to 200"),
        ("CACHE__MAX_STALENESS", "-1", "seconds from 0 to 60"),
        ("CACHE__MAX_STALENESS", "61", "seconds from 0 to 60"),
        ("CACHE__MAX_STALENESS", "NaN", "seconds from 0 to 60"),
        ("CACHE__L1_BYTES", "1000", "from 1048576"),
        ("DATABASE__POOLER", "maybe", "true or false"),
        ("JOBS__RETENTION_PERIOD_SECONDS", "0", "from 1 to 604800"),
        ("JOBS__FINISHED_DAYS", "0", "from 1 to 3660"),
        ("JOBS__TRAIL_DAYS", "4000", "from 1 to 3660"),
        ("JOBS__AUDIT_PERIOD_SECONDS", "1h", "from 1 to 604800"),
        ("JOBS__AUDIT_CUSTOMERS", "-1", "from 0 to 100000"),
        ("REDIS__URL", "http://hidden@host", "redis://USER:PASSWORD@HOST:PORT"),
        ("REDIS__URL", "redis-sentinel://hidden@host", "?master=NAME"),
        ("AUTH__HS256_SECRET_PREVIOUS", "hidden", "`auth.hs256_secret`, which must be set"),
        ("AUTH__LEEWAY_SECONDS", "3600", "from 0 to 120"),
        ("LOG__FILTER", "hidden=[", "a level"),
    ] {
        let name = format!("WINDFALL__{name}");
        let message = refusal("", &[(&name, value)]);
        assert!(message.contains(&name) && message.contains(allowed), "{message}");
        assert!(!message.contains("hidden"), "{message}");
    }
    // A short secret is accepted; `serve` warns about it.
    let short = load("", &[("WINDFALL__AUTH__HS256_SECRET", "s")]).unwrap();
    assert_eq!(short.auth.hs256_secret.unwrap().expose(), "s");
    let small = refusal("[http]\nunfinished_bytes = 1048576", &[]);
    assert!(small.contains("`http.unfinished_bytes`") && small.contains("four times"), "{small}");
    let both = refusal("[auth]\njwks = 'a.json'\npublic_key_pem = 'b.pem'", &[]);
    assert!(both.contains("auth.public_key_pem"), "{both}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = Config::load_with(Some(Path::new("no/such/file")), Environment::default()).unwrap_err().to_string();
    assert!(missing.contains("no/such/file"), "{missing}");
    let broken = refusal("[auth]\nhs256_secret = hidden", &[]);
    assert!(broken.contains("not valid TOML") && !broken.contains("hidden"), "{broken}");
}

#[test]
fn debug_output_holds_no_secrets() {
    let config = load(
        "[auth]\nhs256_secret = 'hidden-hidden-hidden-hidden-hidden-'",
        &[("WINDFALL__DATABASE__URL", "postgres://user:hidden@host/db")],
    );
    let text = format!("{:?}", config.unwrap());
    assert!(!text.contains("hidden") && text.contains("[secret]"), "{text}");
}

/// The keys of texts that a file may contain, and a text for each.
const IN_FILES: [(&str, &str); 7] = [
    ("database.url", "postgres://user:hidden@db.example/shop"),
    ("redis.url", "redis://user:hidden@cache.example"),
    ("auth.hs256_secret", "hidden-hidden-hidden-hidden-hidden"),
    ("auth.hs256_secret_previous", "hidden-hidden-hidden-hidden-previous"),
    ("auth.jwks", "https://user:hidden@issuer.example"),
    ("log.otlp_endpoint", "https://user:hidden@collector.example"),
    ("kafka.password", "hidden password"),
];

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// Every key with a sibling for a file is among [`IN_FILES`], and the siblings of these keys exist.
#[test]
fn secrets_can_be_files() {
    let keys = documented();
    let siblings = keys.keys().filter_map(|key| key.strip_suffix("_file")).filter(|key| keys.contains_key(*key));
    assert_eq!(siblings.collect::<Vec<_>>(), {
        let mut keys = IN_FILES.map(|(key, _)| key);
        keys.sort_unstable();
        keys
    });
    for end in ["", "\n", "\r\n"] {
        let files =
            IN_FILES.map(|(key, text)| (format!("{}_FILE", variable(key)), file(format!("{text}{end}").as_bytes())));
        let environment = files.each_ref().map(|(name, file)| (name.as_str(), file.path().to_str().unwrap()));
        let kafka = [("BROKERS", "b:9092"), ("FACTS_TOPICS", "orders"), ("USERNAME", "app")];
        let kafka = kafka.map(|(name, value)| (format!("WINDFALL__KAFKA__{name}"), value));
        let mut environment = environment.to_vec();
        environment.extend(kafka.iter().map(|(name, value)| (name.as_str(), *value)));
        let config = load("", &environment).unwrap();
        assert_eq!(config.database.url.expose(), IN_FILES[0].1);
        assert!(matches!(config.database.login, Some(Login::Url(_))));
        assert!(config.redis.servers.is_some());
        assert_eq!(config.auth.hs256_secret.unwrap().expose(), IN_FILES[2].1);
        assert_eq!(config.auth.hs256_secret_previous.unwrap().expose(), IN_FILES[3].1);
        assert_eq!(config.auth.public_keys, Some(PublicKeys::JwksUrl(IN_FILES[4].1.to_owned())));
        assert_eq!(config.log.otlp_endpoint.as_deref(), Some(IN_FILES[5].1));
        assert_eq!(config.kafka.unwrap().security.sasl.unwrap().password.expose(), IN_FILES[6].1);
    }
}

#[test]
fn a_value_and_its_file_are_not_both_accepted() {
    for (key, text) in IN_FILES {
        let (name, file) = (variable(key), file(text.as_bytes()));
        let file_name = format!("{name}_FILE");
        let message = refusal("", &[(&name, text), (&file_name, file.path().to_str().unwrap())]);
        for part in [format!("`{key}`"), format!("`{key}_file`"), format!("({name})"), format!("({file_name})")] {
            assert!(message.contains(&part), "{message}");
        }
        assert!(!message.contains("hidden"), "{message}");
        // An empty value is none.
        assert!(!matches!(load("", &[(&name, ""), (&file_name, "/")]), Err(ConfigError::Both { .. })));
    }
}

#[test]
fn files_without_a_secret_are_refused_without_their_content() {
    let long = [b"hidden".as_slice(), &[b'x'; 65_536]].concat();
    for (content, problem) in [
        (None, "cannot be read"),
        (Some(b"".as_slice()), "is empty"),
        (Some(b"\n"), "is empty"),
        (Some(b"hidden\xff"), "is not UTF-8"),
        (Some(&long), "is larger than 64 KiB"),
    ] {
        let file = content.map(file);
        let path = file.as_ref().map_or("/no/hidden/file", |file| file.path().to_str().unwrap());
        for key in
            IN_FILES.map(|(key, _)| format!("{key}_file")).into_iter().chain(["database.password_file".to_owned()])
        {
            let url = ("WINDFALL__DATABASE__URL", "postgres://user@db.example/shop");
            let name = variable(&key);
            let environment = [url, (&name, path)];
            let used = if key == "database.password_file" { &environment[..] } else { &environment[1..] };
            let message = refusal("", used);
            assert!(message.contains(&format!("`{key}` ({name})")) && message.contains(problem), "{message}");
            assert!(!message.contains("hidden"), "{message}");
        }
    }
}

#[test]
fn a_password_comes_from_one_place() {
    let file = file(b"hidden\n");
    let password = ("WINDFALL__DATABASE__PASSWORD_FILE", file.path().to_str().unwrap());
    let url = "WINDFALL__DATABASE__URL";
    let config = load("", &[(url, "postgres://user@db.example/shop"), password]).unwrap();
    assert_eq!(config.database.password.unwrap().expose(), "hidden");
    assert!(matches!(config.database.login, Some(Login::Password(_))));
    for other in ["postgres://user:pass@db.example/shop", "sqlite://shop.db"] {
        let message = refusal("", &[(url, other), password]);
        assert!(message.contains("`database.password_file`") && !message.contains("pass@"), "{message}");
    }
}

#[test]
fn the_previous_secret_is_another_one() {
    let current = ("WINDFALL__AUTH__HS256_SECRET", "hidden-hidden-hidden-hidden-hidden");
    let message = refusal("", &[current, ("WINDFALL__AUTH__HS256_SECRET_PREVIOUS", current.1)]);
    assert!(message.contains("`auth.hs256_secret_previous`") && !message.contains("hidden"), "{message}");
}

#[test]
fn keys_and_certificates_of_redis_are_checked() {
    let file = file(b"hidden");
    let path = file.path().to_str().unwrap();
    let url = ("WINDFALL__REDIS__URL", "rediss://cache.example");
    for (variables, part) in [
        (&[("WINDFALL__REDIS__CLIENT_CERT_FILE", path)][..], "`redis.client_key_file`"),
        (&[("WINDFALL__REDIS__CLIENT_KEY_FILE", path)], "`redis.client_key_file`"),
        (&[("WINDFALL__REDIS__CA_FILE", "/no/hidden/file")], "`redis.ca_file`"),
        (&[("WINDFALL__REDIS__CA_FILE", path)], "`redis.ca_file`"),
    ] {
        let message = refusal("", &[&[url], variables].concat());
        assert!(message.contains(part) && !message.contains("hidden"), "{message}");
    }
}

#[test]
fn a_jwks_file_contains_a_url() {
    let file = file(br#"{"keys": []}"#);
    let message = refusal("", &[("WINDFALL__AUTH__JWKS_FILE", file.path().to_str().unwrap())]);
    assert!(message.contains("`auth.jwks_file`") && message.contains("`auth.jwks`"), "{message}");
}

#[test]
fn a_broker_without_a_topic_and_half_a_login_are_refused() {
    let kafka = |values: &[(&str, &str)]| {
        let values: Vec<_> = values.iter().map(|(name, value)| (format!("WINDFALL__KAFKA__{name}"), *value)).collect();
        let environment: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        load("", &environment).map(|config| config.kafka.is_some()).map_err(|error| error.to_string())
    };
    assert_eq!(kafka(&[]), Ok(false));
    for topic in ["FACTS_TOPICS", "EVENTS_TOPIC", "BALANCES_TOPIC"] {
        assert_eq!(kafka(&[("BROKERS", "b:9092"), (topic, "orders")]), Ok(true));
    }
    for (values, key) in [
        (&[("BROKERS", "b:9092")][..], "kafka.facts_topics"),
        (&[("FACTS_TOPICS", "orders")], "kafka.brokers"),
        (&[("BALANCES_TOPIC", "b")], "kafka.brokers"),
        (&[("BROKERS", "b:9092"), ("EVENTS_TOPIC", "a"), ("BALANCES_TOPIC", "a")], "kafka.balances_topic"),
        // Events are not facts: this would never end.
        (&[("BROKERS", "b:9092"), ("FACTS_TOPICS", "a,b"), ("EVENTS_TOPIC", "b")], "kafka.facts_topics"),
        (&[("USERNAME", "app")], "kafka.password"),
        (&[("PASSWORD", "hidden")], "kafka.username"),
        (&[("CA_FILE", "ca.pem")], "kafka.ca_file"),
        (&[("TLS", "true"), ("CLIENT_CERT_FILE", "client.pem")], "kafka.client_key_file"),
        (&[("SASL_MECHANISM", "GSSAPI")], "kafka.sasl_mechanism"),
    ] {
        let told = kafka(values).unwrap_err();
        assert!(told.contains(&format!("`{key}`")) && !told.contains("hidden"), "{told}");
    }
}
