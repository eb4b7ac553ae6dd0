//! The processes of a container, as /proc shows them.

use crate::blocking::blocking;
use crate::engine::Engine;
use types::Fault;

const TITLES: [&str; 4] = ["UID", "PID", "PPID", "CMD"];

/// Processes, as `ps` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    pub titles: [&'static str; 4],
    /// One for each process.
    pub rows: Vec<Vec<String>>,
}

impl Engine {
    /// Processes in the container.
    pub async fn top(&self, name: &str) -> Result<Top, Fault> {
        let container = self.running(name)?;
        let pids = self.inner.runtime.pids(container.id().to_owned()).await?;
        let rows = blocking(move || Ok(pids.into_iter().filter_map(row).collect())).await?;
        container.tell(&self.inner.events, "top", &[]);
        Ok(Top { titles: TITLES, rows })
    }
}

/// `None` where the process has ended meanwhile.
fn row(pid: u32) -> Option<Vec<String>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(render(pid, &status, &command))
}

fn render(pid: u32, status: &str, command: &[u8]) -> Vec<String> {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.split_whitespace().next()).unwrap_or_default().to_owned()
    };
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let mut command = words.join(" ").trim_end().to_owned();
    if command.is_empty() {
        command = format!("[{}]", field("Name:"));
    }
    vec![field("Uid:"), pid.to_string(), field("PPid:"), command]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_row() {
        let status = "Name:\tnginx\nPPid:\t7\nUid:\t33\t33\t33\t33\n";
        assert_eq!(render(9, status, b"nginx:\0-g\0"), ["33", "9", "7", "nginx: -g"]);
        assert_eq!(render(9, status, b"")[3], "[nginx]");
    }
}
