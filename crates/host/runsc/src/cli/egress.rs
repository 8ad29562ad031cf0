//! `--egress` and `--egress-rules`: who may be reached from a container.

use std::net::IpAddr;

use control::{EgressConfig, EgressRule};

/// Most rules.
const MAX_RULES: usize = 1024;

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

impl Rules {
    /// With what is done where none fits.
    pub(crate) fn config(&self, egress: Egress) -> EgressConfig {
        EgressConfig { denies: egress == Egress::Deny, rules: self.0.clone() }
    }
}

/// Reads rules with commas between.
pub(crate) fn rules(text: &str) -> Result<Rules, String> {
    let rules = text.split(',').filter(|rule| !rule.is_empty()).map(rule).collect::<Result<Vec<_>, _>>()?;
    if rules.len() > MAX_RULES { Err(format!("more than {MAX_RULES} rules")) } else { Ok(Rules(rules)) }
}

/// Reads `allow:ADDRESS[/BITS][@PORT[-PORT]]`, or `deny:...`.
fn rule(text: &str) -> Result<EgressRule, String> {
    let wrong = || format!("{text:?} is not allow:ADDRESS[/BITS][@PORT[-PORT]] or deny:...");
    let (word, rest) = text.split_once(':').ok_or_else(wrong)?;
    let allow = match word {
        "allow" => true,
        "deny" => false,
        _ => return Err(wrong()),
    };
    let (network, ports) =
        rest.split_once('@').map_or((rest, None), |(network, ports)| (network, Some(ports)));
    let (ip, bits) = network.split_once('/').map_or((network, None), |(ip, bits)| (ip, Some(bits)));
    let to: IpAddr = ip.parse().map_err(|_| wrong())?;
    let most = if to.is_ipv4() { 32 } else { 128 };
    let prefix = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
    let port = |text: &str| text.parse().map_err(|_| wrong());
    let ports = match ports.map(|ports| ports.split_once('-').unwrap_or((ports, ports))) {
        None => (0, u16::MAX),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    if prefix > most || ports.0 > ports.1 {
        Err(wrong())
    } else {
        Ok(EgressRule { allow, to, prefix, ports })
    }
}

#[cfg(test)]
mod tests {
    use super::rules;

    #[test]
    fn rules_are_read_or_refused() {
        let read = rules("allow:10.0.0.0/8@443,deny:fd00::1,allow:192.0.2.1@1-9").expect("rules").0;
        let short: Vec<_> = read.iter().map(|rule| (rule.allow, rule.prefix, rule.ports)).collect();
        assert_eq!(short, [(true, 8, (443, 443)), (false, 128, (0, 65_535)), (true, 32, (1, 9))]);
        assert_eq!(rules("").map(|rules| rules.0.len()), Ok(0));
        for wrong in [
            "10.0.0.0/8",
            "maybe:10.0.0.1",
            "allow:host",
            "allow:10.0.0.1/33",
            "allow:10.0.0.1@9-1",
            "allow:10.0.0.1@x",
        ] {
            assert!(rules(wrong).is_err(), "{wrong}");
        }
    }
}
