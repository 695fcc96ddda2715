//! What of YAML is read, and that the rest is one fault at its place.

use super::expect::{assert_faults, main_fault, main_faults, map_faults};
use staterouter::config::Config;

#[test]
fn files_that_hold_nothing_usable() {
    main_faults("", &[(1, 1, "empty", "example")]);
    main_faults("# only a comment\n\n", &[(1, 1, "empty", "example")]);
    main_faults("\u{feff}", &[(1, 1, "empty", "example")]);
    main_faults(
        "---\n",
        &[(1, 4, "must be a map, this is nothing", "key: value")],
    );
    main_faults(
        "- a\n- b\n",
        &[(1, 1, "the main file must be a map, this is a list", "")],
    );
    map_faults(
        "hello\n",
        &[(1, 1, "the partition map must be a map, this is `hello`", "")],
    );
}

#[test]
fn files_that_are_not_utf8_or_too_large() {
    let bytes = b"partition_map: m\nlog:\n  level: \xc3\xa4\xff\n";
    let faults = Config::parse(bytes, "main.yaml").unwrap_err();
    assert_faults(&faults, &[(3, 11, "not UTF-8", "save the file as UTF-8")]);

    let utf16: Vec<u8> = "\u{feff}a: 1\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_faults(
        &Config::parse(utf16, "f").unwrap_err(),
        &[(1, 1, "not UTF-8", "UTF-8")],
    );

    let fits = format!("partition_map: m\n#{}", "x".repeat((1 << 20) - 18));
    assert!(Config::parse(&fits, "f").is_ok());
    main_faults(
        &format!("{fits}x"),
        &[(1, 1, "1048577 bytes, more than 1 MiB", "")],
    );
}

#[test]
fn yaml_that_does_not_parse_is_one_fault() {
    main_faults(
        "workers: 999\nlog:\n\tlevel: info\n",
        &[(3, 1, "not valid YAML: found character", "spaces")],
    );
    main_faults(
        "listen: [::1]:42424\n",
        &[(1, 10, "not valid YAML", "quotes")],
    );
    main_faults("allow: [10.0.0.1\n", &[(1, 17, "not valid YAML", "")]);
    main_faults("partition_map: 'm\n", &[(1, 18, "not valid YAML", "")]);
    main_fault("workers: *w\n", (2, 10, "unknown anchor", ""));
    main_fault("...\n}\n", (3, 1, "not valid YAML", ""));
}

#[test]
fn text_that_readers_of_yaml_disagree_about() {
    main_fault("\n# c\u{85}workers: 2\n", (3, 4, "U+0085", "remove it"));
    main_fault("log: {} # \u{2028}\n", (2, 11, "U+2028", ""));
    main_fault("log: \"ä\u{7}\"\n", (2, 8, "U+0007", ""));
    main_fault("\u{feff}log: {}\n", (2, 1, "U+FEFF", ""));
    main_faults(
        "%YAML 1.2\n---\npartition_map: m\n",
        &[(1, 1, "directives are not supported", "begins with `%`")],
    );
    main_fault("\r%TAG ! x\n", (3, 1, "directives are not supported", ""));
    assert!(Config::parse("partition_map: \"%\u{a0}ä\u{1f600}\"\n", "f").is_ok());
}

#[test]
fn yaml_features_a_configuration_does_not_need() {
    main_fault(
        "log: !custom {x: y}\n",
        (2, 6, "tags are not supported", "without a tag"),
    );
    main_fault("workers: ! 4\n", (2, 10, "tags are not supported", ""));
    main_fault("!t workers: 4\n", (2, 1, "tags are not supported", ""));
    main_fault(
        "workers: !!int many\n",
        (2, 10, "not what its tag says", "without a tag"),
    );
    main_fault(
        "---\nworkers: 2\n",
        (2, 1, "a second YAML document", "one document per file"),
    );
    main_fault("...\n---\n# c\n\nlog: {}\n", (3, 1, "a second YAML", ""));
    main_fault("...\nlog: {}\n", (3, 1, "not valid YAML", ""));
    main_fault("\n--- # c\n", (3, 1, "a second YAML document", ""));
    main_fault("[a, b]: 1\n", (2, 1, "cannot be a key", "plain name"));
    main_fault("? {a: b}\n: 1\n", (2, 3, "cannot be a key", "plain name"));
    main_fault("<<: {workers: 2}\n", (2, 1, "unknown key `<<`", ""));
}

#[test]
fn aliases_and_the_tags_of_yaml_mean_what_yaml_says() {
    let text = "partition_map: &m !!str 12\nlog: !!map {level: warn}\ntimeouts: \
                {connect: &t 3s, answer: *t}\nworkers: !!int \"4\"\n";
    let config = Config::parse(text, "f").unwrap();
    assert_eq!(
        (config.partition_map.to_str(), config.workers),
        (Some("12"), 4)
    );
    assert_eq!(config.timeouts.answer.as_secs(), 3);
    // A fault of a repeated value is shown where the value is written.
    main_fault(
        "timeouts: {connect: &t 3s}\nlimits: {head: *t}\n",
        (2, 21, "`3s` is not a size", ""),
    );
}
