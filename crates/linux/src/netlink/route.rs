//! IPv4 routes, and the one rule that steers replies of the routing mesh.

use super::Socket;
use super::message::{CREATE, EXCLUSIVE, Message, REPLACE, u32_at};
use crate::error::Error;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const SHOW_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const SHOW_RULE: u16 = 34;

const FAMILY_IPV4: u8 = 2;
/// The length of the fixed parts, `struct rtmsg` and `struct fib_rule_hdr`.
const FIXED: usize = 12;
pub(crate) const TABLE_MAIN: u32 = 254;
const PROTOCOL_BOOT: u8 = 3;
const SCOPE_ALL: u8 = 0;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
const TO_TABLE: u8 = 1;

const DESTINATION: u16 = 1;
const OUT: u16 = 4;
const GATEWAY: u16 = 5;
const TABLE: u16 = 15;

const RULE_IN: u16 = 3;
const RULE_PRIORITY: u16 = 6;
const RULE_MARK: u16 = 10;
const RULE_TABLE: u16 = 15;
const RULE_MASK: u16 = 16;

/// A unicast route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// 0.0.0.0/0 is the default route.
    pub(crate) destination: Ipv4Net,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The index of the interface.
    pub(crate) out: u32,
    pub(crate) table: u32,
}

/// All IPv4 unicast routes of a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes(Vec<Route>);

impl Routes {
    /// Lists the routes of the socket's namespace.
    pub(crate) fn observe(socket: &mut Socket) -> Result<Self, Error> {
        let mut fixed = [0; FIXED];
        fixed[0] = FAMILY_IPV4;
        let question = Message::new("list routes", SHOW_ROUTE, 0).fixed(&fixed);
        let mut list = Vec::new();
        for answer in socket.dump(question)? {
            let attributes = answer.attributes(FIXED);
            let prefix = answer.body.get(1).copied().unwrap_or_default();
            let to = attributes.find_address(DESTINATION).unwrap_or(Ipv4Addr::UNSPECIFIED);
            let Ok(destination) = Ipv4Net::new(to, prefix) else { continue };
            let Some(out) = attributes.find_number(OUT) else { continue };
            list.push(Route {
                destination,
                gateway: attributes.find_address(GATEWAY),
                out,
                table: attributes.find_number(TABLE).unwrap_or_default(),
            });
        }
        Ok(Self(list))
    }

    /// Where routes of a table lead out by an interface; the default route says nothing.
    pub(crate) fn by(&self, out: u32, table: u32) -> impl Iterator<Item = Ipv4Net> {
        let routes = self.0.iter().filter(move |route| (route.out, route.table) == (out, table));
        routes.map(|route| route.destination).filter(|to| to.prefix_len() != 0)
    }

    pub(crate) fn contains(&self, route: &Route) -> bool {
        self.0.contains(route)
    }
}

/// `ip route replace DESTINATION [via GATEWAY] dev INDEX table TABLE`
pub(crate) fn add_route(route: &Route) -> Message {
    let doing = format!("set the route to {}", route.destination);
    render_route(Message::new(doing, NEW_ROUTE, CREATE | REPLACE), route)
}

/// `ip route del DESTINATION [via GATEWAY] dev INDEX table TABLE`
pub(crate) fn delete_route(route: &Route) -> Message {
    let doing = format!("remove the route to {}", route.destination);
    render_route(Message::new(doing, DELETE_ROUTE, 0).tolerating(&[libc::ESRCH]), route)
}

fn render_route(message: Message, route: &Route) -> Message {
    let scope = if route.gateway.is_some() { SCOPE_ALL } else { SCOPE_LINK };
    let mut fixed = [0; FIXED];
    fixed[0] = FAMILY_IPV4;
    fixed[1] = route.destination.prefix_len();
    fixed[5] = PROTOCOL_BOOT;
    fixed[6] = scope;
    fixed[7] = UNICAST;
    let message = message.fixed(&fixed).number(OUT, route.out).number(TABLE, route.table);
    let message = match route.destination.prefix_len() {
        0 => message,
        _ => message.address(DESTINATION, route.destination.network()),
    };
    match route.gateway {
        Some(gateway) => message.address(GATEWAY, gateway),
        None => message,
    }
}

/// The rule that sends marked packets coming in by an interface to a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steering<'a> {
    /// Without it the tunnel's own outer packets, which carry the mark as well, would be sent into
    /// the tunnel again.
    pub(crate) input: &'a str,
    pub(crate) mark: u32,
    pub(crate) mask: u32,
    pub(crate) table: u32,
    pub(crate) priority: u32,
}

/// Says whether the rule is there.
pub(crate) fn steering_present(
    socket: &mut Socket,
    steering: &Steering<'_>,
) -> Result<bool, Error> {
    let mut fixed = [0; FIXED];
    fixed[0] = FAMILY_IPV4;
    let question = Message::new("list routing rules", SHOW_RULE, 0).fixed(&fixed);
    let list = socket.dump(question)?;
    Ok(list.iter().any(|answer| {
        let attributes = answer.attributes(FIXED);
        attributes.find_text(RULE_IN).as_deref() == Some(steering.input)
            && attributes.find(RULE_MARK).map(|mark| u32_at(mark, 0)) == Some(steering.mark)
            && attributes.find_number(RULE_TABLE) == Some(steering.table)
            && attributes.find_number(RULE_PRIORITY) == Some(steering.priority)
    }))
}

/// `ip rule add iif INPUT fwmark MARK/MASK lookup TABLE priority PRIORITY`
pub(crate) fn add_steering(steering: &Steering<'_>) -> Message {
    render(Message::new("add the routing rule", NEW_RULE, CREATE | EXCLUSIVE), steering)
        .tolerating(&[libc::EEXIST])
}

/// `ip rule del iif INPUT fwmark MARK/MASK lookup TABLE priority PRIORITY`
pub(crate) fn delete_steering(steering: &Steering<'_>) -> Message {
    render(Message::new("remove the routing rule", DELETE_RULE, 0), steering)
        .tolerating(&[libc::ENOENT])
}

fn render(message: Message, steering: &Steering<'_>) -> Message {
    let mut fixed = [0; FIXED];
    fixed[0] = FAMILY_IPV4;
    fixed[7] = TO_TABLE;
    message
        .fixed(&fixed)
        .text(RULE_IN, steering.input)
        .number(RULE_PRIORITY, steering.priority)
        .number(RULE_MARK, steering.mark)
        .number(RULE_MASK, steering.mask)
        .number(RULE_TABLE, steering.table)
}
