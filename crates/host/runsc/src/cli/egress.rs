//! `--egress`, `--egress-rules` and `--egress-resolvers`: who may be reached from a container.

use std::net::IpAddr;

use control::{EgressConfig, EgressRule, EgressTarget};

/// Most rules, and most resolvers.
const MAX_RULES: usize = 1024;
const MAX_RESOLVERS: usize = 16;
/// Longest name.
const MAX_NAME: usize = 253;

/// What is done with what no rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Egress {
    /// It may be reached
    Allow,
    /// It may not
    Deny,
}

/// Rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(Vec<EgressRule>);

/// Who is believed about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolvers(Vec<IpAddr>);

impl Rules {
    /// With what is done where none fits. Rules about names are of no use without resolvers.
    pub(crate) fn config(&self, egress: Egress, resolvers: &Resolvers) -> anyhow::Result<EgressConfig> {
        let name = self.0.iter().find_map(|rule| match &rule.to {
            EgressTarget::Network { .. } => None,
            EgressTarget::Name(name) | EgressTarget::Below(name) => Some(name),
        });
        if let Some(name) = name.filter(|_| resolvers.0.is_empty()) {
            anyhow::bail!(
                "a rule is about {name:?}, and --egress-resolvers names nobody who knows its addresses"
            );
        }
        let (rules, resolvers) = (self.0.clone(), resolvers.0.clone());
        Ok(EgressConfig { denies: egress == Egress::Deny, rules, resolvers })
    }
}

/// Reads addresses with commas between.
pub(crate) fn resolvers(text: &str) -> Result<Resolvers, String> {
    let one = |word: &str| word.parse().map_err(|_| format!("{word:?} is no address"));
    let all = text.split(',').filter(|word| !word.is_empty()).map(one).collect::<Result<Vec<_>, _>>()?;
    if all.len() > MAX_RESOLVERS { Err(format!("more than {MAX_RESOLVERS}")) } else { Ok(Resolvers(all)) }
}

/// Reads rules with commas between.
pub(crate) fn rules(text: &str) -> Result<Rules, String> {
    let rules = text.split(',').filter(|rule| !rule.is_empty()).map(rule).collect::<Result<Vec<_>, _>>()?;
    if rules.len() > MAX_RULES { Err(format!("more than {MAX_RULES} rules")) } else { Ok(Rules(rules)) }
}

/// Reads `allow:TARGET[@PORT[-PORT]]`, or `deny:...`.
fn rule(text: &str) -> Result<EgressRule, String> {
    let wrong = || {
        format!(
            "{text:?} is not allow:ADDRESS[/BITS][@PORT[-PORT]], allow:[*.]NAME[@PORT[-PORT]] or deny:..."
        )
    };
    let (word, rest) = text.split_once(':').ok_or_else(wrong)?;
    let allow = match word {
        "allow" => true,
        "deny" => false,
        _ => return Err(wrong()),
    };
    let (place, ports) = rest.split_once('@').map_or((rest, None), |(place, ports)| (place, Some(ports)));
    let to = target(place).ok_or_else(wrong)?;
    let port = |text: &str| text.parse().map_err(|_| wrong());
    let ports = match ports.map(|ports| ports.split_once('-').unwrap_or((ports, ports))) {
        None => (0, u16::MAX),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    if ports.0 > ports.1 { Err(wrong()) } else { Ok(EgressRule { allow, to, ports }) }
}

/// An address, a network, or a name.
fn target(text: &str) -> Option<EgressTarget> {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    if let Ok(ip) = ip.parse::<IpAddr>() {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = bits.map_or(Some(most), |bits| bits.parse().ok()).filter(|prefix| *prefix <= most)?;
        return Some(EgressTarget::Network { ip, prefix });
    }
    let below = text.strip_prefix("*.");
    let name = below.unwrap_or(text).trim_end_matches('.').to_ascii_lowercase();
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let sound = |label: &str| (1..64).contains(&label.len()) && label.bytes().all(usual);
    // What ends in a number was to be an address.
    let last = name.rsplit('.').next().unwrap_or_default();
    let good =
        name.len() <= MAX_NAME && name.split('.').all(sound) && !last.bytes().all(|b| b.is_ascii_digit());
    let made = if below.is_some() { EgressTarget::Below } else { EgressTarget::Name };
    good.then(|| made(name))
}

#[cfg(test)]
mod tests {
    use super::{Egress, EgressTarget, Resolvers, resolvers, rules};

    #[test]
    fn rules_are_read_or_refused() {
        let read = rules("allow:10.0.0.0/8@443,deny:fd00::1,allow:192.0.2.1@1-9").expect("rules").0;
        let prefix = |to: &EgressTarget| match to {
            EgressTarget::Network { prefix, .. } => *prefix,
            _ => 0,
        };
        let short: Vec<_> = read.iter().map(|rule| (rule.allow, prefix(&rule.to), rule.ports)).collect();
        assert_eq!(short, [(true, 8, (443, 443)), (false, 128, (0, 65_535)), (true, 32, (1, 9))]);
        assert_eq!(rules("").map(|rules| rules.0.len()), Ok(0));
        for wrong in [
            "10.0.0.0/8",
            "maybe:10.0.0.1",
            "allow:host/8",
            "allow:10.0.0.256",
            "allow:*.",
            "allow:a..b",
            "allow:a b",
            "allow:10.0.0.1/33",
            "allow:10.0.0.1@9-1",
            "allow:10.0.0.1@x",
        ] {
            assert!(rules(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_need_somebody_who_knows_them() {
        let read = rules("allow:Example.test.@443,allow:*.example.test").expect("rules");
        let names: Vec<_> = read.0.iter().map(|rule| rule.to.clone()).collect();
        let (name, below) = ("example.test".to_owned(), "example.test".to_owned());
        assert_eq!(names, [EgressTarget::Name(name), EgressTarget::Below(below)]);
        assert!(read.config(Egress::Deny, &Resolvers::default()).is_err());
        let known = resolvers("10.0.0.1,fd00::1").expect("addresses");
        assert_eq!(read.config(Egress::Deny, &known).expect("a configuration").resolvers.len(), 2);
        assert!(resolvers("10.0.0.1,host").is_err());
    }
}
