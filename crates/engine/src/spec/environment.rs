//! The environment of processes.

use super::ImageConfig;
use std::collections::BTreeMap;
use types::ContainerSpec;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of a container's first process: Docker's own, the image's, the user's.
pub(crate) fn environment(
    spec: &ContainerSpec,
    image: &ImageConfig,
    hostname: &str,
) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    merge(&merge(&env, &image.env), &spec.env)
}

/// Sets variables, in place where they are there already. A name alone unsets.
///
/// An image may say a hundred thousand: each is found by its name.
pub(crate) fn merge(env: &[String], over: &[String]) -> Vec<String> {
    let mut variables: Vec<Option<&String>> = env.iter().map(Some).collect();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, variable) in env.iter().enumerate() {
        if let Some((name, _)) = variable.split_once('=') {
            places.entry(name).or_insert(place);
        }
    }
    for variable in over {
        match variable.split_once('=') {
            Some((name, _)) => {
                let place = *places.entry(name).or_insert(variables.len());
                if place == variables.len() {
                    variables.push(None);
                }
                variables[place] = Some(variable);
            }
            None => {
                if let Some(place) = places.remove(variable.as_str()) {
                    variables[place] = None;
                }
            }
        }
    }
    variables.into_iter().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_variable_that_was_unset_can_be_set_again_and_comes_last() {
        let merged = |over: &str| merge(&words("A=1 B=2 C=3"), &words(over)).join(" ");
        assert_eq!(merged("B=4"), "A=1 B=4 C=3");
        assert_eq!(merged("A D=5 D=6 E"), "B=2 C=3 D=6");
        assert_eq!(merged("A A=7 A=8 B"), "C=3 A=8");
    }

    /// No loop waits while variables are merged. Each looked for among all would take minutes.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is about the time that it takes")]
    fn a_hundred_thousand_variables_are_merged_in_a_moment() {
        let many: Vec<String> = (0..100_000).map(|number| format!("{number:x}=")).collect();
        let begun = Instant::now();
        let merged = merge(&merge(&[], &many), &many);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(merged, many);
    }
}
