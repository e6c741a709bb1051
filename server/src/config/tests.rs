use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn load(flags: &[(&str, &str)], env: &[(&str, &str)], file: Option<&str>) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coracle.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    Config::load(pairs(flags), pairs(env), file.map(|_| path.as_path()))
}

#[test]
fn layers_merge_setting_by_setting_and_remember_their_origin() {
    let config = load(
        &[("name", "from-flag")],
        &[("CORACLE_NAME", "from-env"), ("CORACLE_QUOTA", "1GiB"), ("CORACLE_PORT", "tcp://10.0.0.1:7070")],
        Some("name = 'from-file'\nquota = '1MiB'\nhistory_count = 7\nallowed_host = ['a', 'b']\n"),
    )
    .unwrap();
    assert_eq!((config.name.as_str(), config.quota.0, config.history_count), ("from-flag", 1 << 30, 7));
    assert_eq!(config.allowed_host, ["a", "b"]);
    assert_eq!(config.listen.to_string(), "127.0.0.1:7070");
    let shown: Vec<_> = config
        .values()
        .into_iter()
        .filter(|(s, ..)| ["name", "quota", "history_count", "listen"].contains(&s.name))
        .map(|(s, value, origin)| {
            format!("{} {value} {}", s.name, origin.to_string().split(' ').next().unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "name from-flag flag",
            "listen 127.0.0.1:7070 default",
            "quota 1GiB environment",
            "history_count 7 file"
        ]
    );
}

#[test]
fn every_default_is_valid_and_shown_as_written() {
    let config = Config::default();
    config.check().unwrap();
    for (setting, value, origin) in config.values() {
        assert_eq!((value.as_str(), origin), (setting.default, &Origin::Default), "{}", setting.name);
    }
}

#[test]
fn bad_configurations_are_refused_with_the_setting_named() {
    for (flags, file, expect) in [
        (&[("whatch", "1")][..], None, "unknown setting in flag: name=whatch"),
        (&[], Some("lsten = '1'"), "unknown setting in file"),
        (&[], Some("listen = 1.5"), "a setting is a text, a number or a list of texts name=listen"),
        (&[], Some("listen = "), "not a configuration file"),
        (
            &[("listen", "here")],
            None,
            "bad value for listen from flag: invalid socket address syntax value=\"here\"",
        ),
        (&[("quota", "-1")], None, "bad value for quota"),
        (&[("history_age", "1 week")], None, "bad value for history_age"),
        (&[("tls_cert", "a.pem")], None, "tls_cert and tls_key go together"),
        (&[("tls_client_auth", "required")], None, "tls_client_auth needs"),
        (&[("peer_tls_ca", "a.pem")], None, "go together"),
        (&[("initial_cluster", "n1=a:1"), ("join", "http://x")], None, "exclude each other"),
        (&[("initial_cluster", "n2=a:1,n3=b:1")], None, "does not list this node name=n1"),
        (&[("initial_cluster", "n1=a:1,n1=b:1")], None, "listed twice"),
        (&[("initial_cluster", "n1=a")], None, "not NAME=HOST:PORT"),
        (&[("max_value", "2MiB")], None, "max_value is over its bound"),
        (&[("data", "")], None, "bad value for data"),
    ] {
        let error = load(flags, &[], file).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error} should contain {expect}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load([], pairs(&[("CORACLE_CONFIG", "/nowhere/c.toml")]), None).unwrap_err();
    assert!(error.to_string().contains("path=/nowhere/c.toml"), "{error}");
}
