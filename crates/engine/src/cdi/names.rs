//! From what is asked for to names of the Container Device Interface.

use super::Registry;
use types::{DeviceRequest, Fault};

/// Vendors whose GPUs are looked for where none is named, in this order.
const VENDORS: [&str; 3] = ["nvidia", "amd", "intel"];
/// What vendors call all their devices together.
const ALL: &str = "all";

/// The names of the devices that are asked for.
pub(crate) fn names(requests: &[DeviceRequest], registry: &Registry) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for request in requests {
        if request.driver == DeviceRequest::CDI {
            names.extend(request.ids.iter().cloned());
        } else {
            names.extend(gpus(request, registry)?);
        }
    }
    Ok(names)
}

fn gpus(request: &DeviceRequest, registry: &Registry) -> Result<Vec<String>, Fault> {
    let is_gpu = |set: &Vec<String>| set.iter().any(|word| word == "gpu");
    let unknown = || {
        let sets: Vec<String> =
            request.capabilities.iter().map(|set| format!("[{}]", set.join(" "))).collect();
        Fault::invalid(format!(
            "could not select device driver \"{}\" with capabilities: [{}]: no file of the \
             Container Device Interface has such devices",
            request.driver,
            sets.join(" ")
        ))
    };
    let is_wanted = |vendor: &&str| request.driver.is_empty() || request.driver == *vendor;
    let mut kinds = VENDORS.into_iter().filter(is_wanted).map(|vendor| format!("{vendor}.com/gpu"));
    let has = |kind: &String| registry.of_kind(kind).next().is_some();
    let kind = kinds.find(has).filter(|_| request.capabilities.iter().any(is_gpu));
    let kind = kind.ok_or_else(unknown)?;
    let name = |id: &str| format!("{kind}={id}");
    if !request.ids.is_empty() {
        return Ok(request.ids.iter().map(|id| name(id)).collect());
    }
    match usize::try_from(request.count) {
        // The first ones: their vendors count them.
        Ok(count) if 0 < count => Ok((0..count).map(|number| name(&number.to_string())).collect()),
        Ok(_) | Err(_) => {
            let mut there = registry.of_kind(&kind);
            if there.any(|id| id == ALL) {
                return Ok(vec![name(ALL)]);
            }
            Ok(registry.of_kind(&kind).map(name).collect())
        }
    }
}
