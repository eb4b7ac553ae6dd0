//! Placeholders in what a user wants of a container: `{{.Service.Name}}` and the like.
//!
//! Pure. Docker expands Go templates in the environment, the host name and mounts of a service's
//! containers; of these, plain fields are honoured, and anything else is an error rather than a
//! text that nobody meant.

use types::{NodeDescription, NodeId, Task};

/// What placeholders stand for.
pub(crate) struct Context<'a> {
    pub(crate) task: &'a Task,
    pub(crate) node: &'a NodeId,
    pub(crate) description: &'a NodeDescription,
}

impl Context<'_> {
    /// Replaces every placeholder; says which one is not known.
    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inside, behind)) = after.split_once("}}") else {
                return Err(format!("template '{text}' is not closed"));
            };
            expanded.push_str(before);
            let value = self.value(inside.trim()).ok_or_else(|| {
                format!("template '{{{{{inside}}}}}' is not known: use .Service.ID, .Service.Name, .Service.Labels.*, .Node.ID, .Node.Hostname, .Node.Platform.OS, .Node.Platform.Architecture, .Task.ID, .Task.Name or .Task.Slot")
            })?;
            expanded.push_str(&value);
            rest = behind;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn value(&self, field: &str) -> Option<String> {
        let Self { task, node, description } = self;
        if let Some(label) = field.strip_prefix(".Service.Labels.") {
            return Some(task.service_labels.get(label).cloned().unwrap_or_default());
        }
        match field {
            ".Service.ID" => Some(task.service.to_string()),
            ".Service.Name" => Some(task.service_name.clone()),
            ".Node.ID" => Some(node.to_string()),
            ".Node.Hostname" => Some(description.hostname.clone()),
            ".Node.Platform.OS" => Some(description.platform.os.clone()),
            ".Node.Platform.Architecture" => Some(description.platform.architecture.clone()),
            ".Task.ID" => Some(task.id.to_string()),
            ".Task.Name" => Some(task.name()),
            // A task of a global service is told from others by its node.
            ".Task.Slot" if task.slot == 0 => Some(node.to_string()),
            ".Task.Slot" => Some(task.slot.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let mut task = Task { id: "t".into(), service_name: "web".into(), ..Task::default() };
        task.slot = 2;
        task.service_labels.insert("tier".into(), "front".into());
        let description = NodeDescription { hostname: "node-1".into(), ..Default::default() };
        let (task, node) = (&task, &"n".into());
        Context { task, node, description: &description }.expand(text)
    }

    #[test]
    fn placeholders_are_replaced_and_other_text_stays() {
        assert_eq!(expand("plain $HOME }").unwrap(), "plain $HOME }");
        assert_eq!(
            expand("{{.Service.Name}}-{{ .Task.Slot }}@{{.Node.Hostname}}").unwrap(),
            "web-2@node-1"
        );
        assert_eq!(expand("{{.Task.Name}}").unwrap(), "web.2.t");
        assert_eq!(expand("{{.Service.Labels.tier}}").unwrap(), "front");
    }

    #[test]
    fn a_placeholder_that_is_not_known_is_an_error() {
        assert!(expand("{{.Service.Nmae}}").unwrap_err().contains("{{.Service.Nmae}}"));
        assert!(expand("{{.Task.ID").unwrap_err().contains("not closed"));
    }
}
