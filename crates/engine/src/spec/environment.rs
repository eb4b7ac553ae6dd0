//! The environment of processes.

use super::ImageConfig;
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
    merge(merge(env, &image.env), &spec.env)
}

/// Sets variables, in place where they are there already. A name alone unsets.
pub(crate) fn merge(mut env: Vec<String>, over: &[String]) -> Vec<String> {
    for variable in over {
        let (name, value) = match variable.split_once('=') {
            Some((name, _)) => (name, Some(variable)),
            None => (variable.as_str(), None),
        };
        let place = env
            .iter()
            .position(|known| known.split_once('=').is_some_and(|(known, _)| known == name));
        match (place, value) {
            (Some(place), Some(value)) => env[place].clone_from(value),
            (Some(place), None) => drop(env.remove(place)),
            (None, Some(value)) => env.push(value.clone()),
            (None, None) => {}
        }
    }
    env
}
