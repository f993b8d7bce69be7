//! Kernel configuration fragments, and the check that each of their lines survived.
//!
//! `make allnoconfig` drops what depends on something that is off, without a word. A guest that silently lacks a driver
//! costs somebody an afternoon; a list of the lost lines costs nothing.

use std::collections::HashMap;

/// A line of a fragment or of a `.config`: an option and its value; `None` is "is not set".
type Line<'a> = (&'a str, Option<&'a str>);

/// Fragments as one: of several lines about an option, the last counts.
pub(crate) fn merge(fragments: &[String]) -> String {
    let lines: Vec<&str> = fragments.iter().flat_map(|text| text.lines()).collect();
    let name = |line: &str| parse_line(line).map(|(name, _)| name.to_owned());
    let last: HashMap<String, usize> =
        lines.iter().enumerate().filter_map(|(at, line)| Some((name(line)?, at))).collect();
    let mut merged = String::new();
    for (at, line) in lines.iter().enumerate() {
        if name(line).is_none_or(|name| last.get(&name) == Some(&at)) {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    merged
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        return name.starts_with("CONFIG_").then_some((name, None));
    }
    let (name, value) = line.split_once('=')?;
    name.starts_with("CONFIG_").then(|| (name, (value != "n").then_some(value)))
}

/// Lines of the fragment that the configuration does not have: as wanted, and as found.
pub(crate) fn lost(fragment: &str, config: &str) -> Vec<String> {
    let config: HashMap<&str, Option<&str>> = config.lines().filter_map(parse_line).collect();
    fragment
        .lines()
        .filter_map(parse_line)
        .filter_map(|(name, wanted)| {
            // An option that the configuration doesn't mention is one that can't be set: as good as "is not set".
            let found = config.get(name).copied().flatten();
            let shown = |value: Option<&str>| value.unwrap_or("not set").to_owned();
            (wanted != found).then(|| format!("{name}: wanted {}, is {}", shown(wanted), shown(found)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_with_every_line_loses_nothing() {
        let fragment = "# A comment.\nCONFIG_SMP=y\n# CONFIG_NET is not set\nCONFIG_NAME=\"a b\"\n";
        let config = "CONFIG_SMP=y\nCONFIG_NAME=\"a b\"\nCONFIG_MORE=y\n";

        assert!(lost(fragment, config).is_empty());
    }

    #[test]
    fn later_fragments_win() {
        let first = "# Pages.\nCONFIG_4K=y\n# CONFIG_64K is not set\nCONFIG_SMP=y\n".to_owned();
        let second = "# CONFIG_4K is not set\nCONFIG_64K=y\n".to_owned();

        assert_eq!(merge(&[first, second]), "# Pages.\nCONFIG_SMP=y\n# CONFIG_4K is not set\nCONFIG_64K=y\n");
    }

    #[test]
    fn option_with_an_unmet_dependency_is_reported() {
        assert_eq!(lost("CONFIG_ZIP=y\n", "CONFIG_SMP=y\n"), ["CONFIG_ZIP: wanted y, is not set"]);
    }

    #[test]
    fn option_that_something_selected_is_reported() {
        assert_eq!(lost("# CONFIG_NET is not set\n", "CONFIG_NET=y\n"), ["CONFIG_NET: wanted not set, is y"]);
    }

    #[test]
    fn n_means_not_set() {
        assert!(lost("CONFIG_VT=n\n", "# CONFIG_VT is not set\n").is_empty());
    }

    #[test]
    fn other_value_is_reported() {
        assert_eq!(
            lost("CONFIG_NR_CPUS=16\n", "CONFIG_NR_CPUS=512\n"),
            ["CONFIG_NR_CPUS: wanted 16, is 512"]
        );
    }
}
