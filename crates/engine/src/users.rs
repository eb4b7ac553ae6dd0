//! Who a container's processes run as, found in the container's own files.

use types::Fault;

/// Numbers of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, the first one included.
    pub(crate) groups: Vec<u32>,
}

/// The container's /etc/passwd and /etc/group; empty where they are missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

impl Accounts {
    /// Finds `user`, `uid`, `user:group`, `uid:gid`; nothing is root. Further groups by name or
    /// number.
    pub(crate) fn find(&self, wanted: &str, further: &[String]) -> Result<User, Fault> {
        let (user, group) = match wanted.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (wanted, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let account = self.accounts().find(|account| is(user, account.name, account.uid));
        let (uid, name) = match &account {
            Some(account) => (account.uid, account.name),
            None => (number(user).ok_or_else(|| unknown_user(user))?, ""),
        };
        let own = account.as_ref().map_or(0, |account| account.gid);
        let gid = group.map_or(Ok(own), |group| self.group(group))?;
        let mut groups = vec![gid];
        if group.is_none() && !name.is_empty() {
            let member = self.groups().filter(|group| group.members.contains(&name));
            groups.extend(member.map(|group| group.gid));
        }
        for group in further {
            groups.push(self.group(group)?);
        }
        let mut seen = std::collections::BTreeSet::new();
        groups.retain(|group| seen.insert(*group));
        Ok(User { uid, gid, groups })
    }

    fn group(&self, wanted: &str) -> Result<u32, Fault> {
        let found = self.groups().find(|group| is(wanted, group.name, group.gid));
        let missing = || {
            Fault::invalid(format!(
                "unable to find group {wanted}: no matching entries in group file"
            ))
        };
        found.map(|group| group.gid).or_else(|| number(wanted)).ok_or_else(missing)
    }

    /// `name:password:uid:gid:…`
    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some(Account { name, uid, gid: fields.next()?.parse().ok()? })
        })
    }

    /// `name:password:gid:member,member`
    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some(Group {
                name,
                gid,
                members: fields.next().unwrap_or_default().split(',').collect(),
            })
        })
    }
}

fn is(wanted: &str, name: &str, id: u32) -> bool {
    wanted == name || number(wanted) == Some(id)
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= i32::MAX.unsigned_abs())
}

fn unknown_user(user: &str) -> Fault {
    Fault::invalid(format!("unable to find user {user}: no matching entries in passwd file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: &str, further: &[&str], expected: Result<(u32, u32, &[u32]), &str>) {
        let accounts = Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/:\n# comment\n".to_owned(),
            group: "root:x:0:\nweb:x:34:\nlog:x:4:www,adm\n".to_owned(),
        };
        let further: Vec<String> = further.iter().map(|text| (*text).to_owned()).collect();
        let found = accounts.find(user, &further);
        let found = found.as_ref().map(|user| (user.uid, user.gid, user.groups.as_slice()));
        assert_eq!(found.map_err(|fault| fault.message.as_str()), expected);
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        check("", &[], Ok((0, 0, &[0])));
        check("www", &[], Ok((33, 34, &[34, 4])));
        check("33", &["100"], Ok((33, 34, &[34, 4, 100])));
        check("www:log", &[], Ok((33, 4, &[4])));
        check("1000", &[], Ok((1000, 0, &[0])));
        check("1000:1001", &["web"], Ok((1000, 1001, &[1001, 34])));
        check("nobody", &[], Err("unable to find user nobody: no matching entries in passwd file"));
        check("0:no", &[], Err("unable to find group no: no matching entries in group file"));
    }
}
