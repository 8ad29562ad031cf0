//! Filters of packets (`SO_ATTACH_FILTER`, `linux/filter.h`): how many bytes of one a socket takes.
//!
//! Checked as those of seccomp are; loads read the packet, or what is known of it beside its bytes. A load from where
//! there is nothing ends the program with 0: the packet is not taken.

use crate::insn::{ABS, ALU, BYTE, HALF, IMM, IND, Insn, LD, LDX, LEN, MEM, MEM_WORDS, MOD, MSH, RET, X};
use crate::program::{MAX_INSNS, Machine, ProgramError, Step, check_common, check_scratch, legal};

/// Where loads begin that are not from the packet: facts, and the packet from the head of IP or of the link on.
const FACTS: u32 = -0x1000_i32 as u32;
const NETWORK: u32 = -0x10_0000_i32 as u32;
const LINK: u32 = -0x20_0000_i32 as u32;
/// Facts by their place behind [`FACTS`].
const PROTOCOL: u32 = 0;
const KIND: u32 = 4;
const INTERFACE: u32 = 8;
const HARDWARE: u32 = 28;
const LAST: u32 = 60;

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `sll_protocol`, in the machine's order.
    pub protocol: u16,
    /// `sll_pkttype`.
    pub kind: u8,
    /// Interface.
    pub interface: u32,
    /// `sll_hatype`.
    pub hardware: u16,
    /// Bytes of the link's head that stand before the head of IP.
    pub network_at: usize,
}

/// A filter that Linux would accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketFilter(Box<[Insn]>);

impl PacketFilter {
    /// Checks `insns` as Linux does.
    ///
    /// # Errors
    /// The first thing wrong, see [`ProgramError`].
    pub fn new(insns: impl Into<Box<[Insn]>>) -> Result<Self, ProgramError> {
        let insns = insns.into();
        if insns.is_empty() || insns.len() > MAX_INSNS {
            return Err(ProgramError::Length(insns.len()));
        }
        for (at, insn) in insns.iter().enumerate() {
            check_insn(*insn, at, insns.len())?;
        }
        if insns.last().is_none_or(|last| last.code & 0x07 != RET) {
            return Err(ProgramError::NoReturn);
        }
        check_scratch(&insns)?;
        Ok(Self(insns))
    }

    /// How many bytes of `packet` are taken; 0: it is not. Takes at most as many steps as there are instructions.
    pub fn run(&self, packet: &[u8], facts: &Facts) -> u32 {
        let mut machine = Machine::default();
        let mut pc = 0usize;
        while let Some(insn) = self.0.get(pc) {
            match step(&mut machine, *insn, packet, facts) {
                Some(Step::Skip(n)) => pc = pc.saturating_add(1).saturating_add(n as usize),
                Some(Step::Return(value)) => return value,
                None => return 0,
            }
        }
        0
    }
}

fn check_insn(insn: Insn, at: usize, len: usize) -> Result<(), ProgramError> {
    let Insn { code, k, .. } = insn;
    match (code & 0x07, code & !0x07) {
        (LD, rest) if matches!(rest & !(HALF | BYTE), ABS | IND) && rest & (HALF | BYTE) != HALF | BYTE => {
            let fact = rest & !(HALF | BYTE) == ABS && k >= FACTS;
            let known = !fact || (k - FACTS) <= LAST && (k - FACTS).is_multiple_of(4);
            if known { Ok(()) } else { Err(ProgramError::Operand { at, k }) }
        }
        (LDX, rest) if rest == MSH | BYTE => Ok(()),
        (ALU, op) if op & 0xf0 == MOD => {
            let good = op & X != 0 || k != 0;
            legal(op, at, code).and(if good { Ok(()) } else { Err(ProgramError::Operand { at, k }) })
        }
        _ => check_common(insn, at, len),
    }
}

/// `None` for a load from where there is nothing.
fn step(machine: &mut Machine, insn: Insn, packet: &[u8], facts: &Facts) -> Option<Step> {
    let Insn { code, k, .. } = insn;
    let kept = |machine: &Machine| machine.mem.get((k % MEM_WORDS) as usize).copied().unwrap_or(0);
    match (code & 0x07, code & !0x07) {
        (LD | LDX, IMM) => set(machine, code, k),
        (LD | LDX, MEM) => set(machine, code, kept(machine)),
        (LD | LDX, LEN) => set(machine, code, packet.len() as u32),
        (LDX, _) => machine.x = (load(packet, facts, k, BYTE)? & 15) * 4,
        (LD, rest) if rest & !(HALF | BYTE) == IND => {
            machine.a = load(packet, facts, machine.x.checked_add(k)?, rest & (HALF | BYTE))?;
        }
        (LD, _) if k >= FACTS => machine.a = fact(facts, k - FACTS),
        (LD, rest) => machine.a = load(packet, facts, k, rest & (HALF | BYTE))?,
        _ => return Some(machine.step_without_load(insn)),
    }
    Some(Step::Skip(0))
}

fn set(machine: &mut Machine, code: u16, value: u32) {
    if code & 0x07 == LD { machine.a = value } else { machine.x = value }
}

/// Bytes of the packet, in the order of the network.
fn load(packet: &[u8], facts: &Facts, at: u32, width: u16) -> Option<u32> {
    let at = if at >= NETWORK {
        (at - NETWORK) as usize + facts.network_at
    } else if at >= LINK {
        (at - LINK) as usize
    } else {
        at as usize
    };
    let rest = packet.get(at..)?;
    Some(match width {
        BYTE => u32::from(*rest.first()?),
        HALF => u32::from(u16::from_be_bytes(*rest.first_chunk()?)),
        _ => u32::from_be_bytes(*rest.first_chunk()?),
    })
}

/// What is not known is zero: marks, queues, tags of virtual networks, and random numbers.
fn fact(facts: &Facts, at: u32) -> u32 {
    match at {
        PROTOCOL => facts.protocol.into(),
        KIND => facts.kind.into(),
        INTERFACE => facts.interface,
        HARDWARE => facts.hardware.into(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, PacketFilter};
    use crate::insn::Insn;
    use crate::program::ProgramError;

    /// What `tcpdump -dd 'udp port 53'` says of IPv4, shortened.
    fn dns() -> Vec<Insn> {
        vec![
            Insn::stmt(0x28, 12),
            Insn::jump(0x15, 0x800, 0, 10),
            Insn::stmt(0x30, 23),
            Insn::jump(0x15, 17, 0, 8),
            Insn::stmt(0x28, 20),
            Insn::jump(0x45, 0x1fff, 6, 0),
            Insn::stmt(0xb1, 14),
            Insn::stmt(0x48, 14),
            Insn::jump(0x15, 53, 2, 0),
            Insn::stmt(0x48, 16),
            Insn::jump(0x15, 53, 0, 1),
            Insn::stmt(0x06, 262_144),
            Insn::stmt(0x06, 0),
        ]
    }

    #[test]
    fn a_packet_is_taken_or_not() {
        let filter = PacketFilter::new(dns()).expect("a filter");
        let mut packet = vec![0; 14 + 20 + 8];
        packet[12] = 8;
        packet[14] = 0x45;
        packet[23] = 17;
        assert_eq!(filter.run(&packet, &Facts::default()), 0);
        packet[37] = 53;
        assert_eq!(filter.run(&packet, &Facts::default()), 262_144);
        assert_eq!(filter.run(&packet[..30], &Facts::default()), 0);
    }

    #[test]
    fn facts_and_places_behind_the_link_are_read() {
        let facts = Facts { protocol: 0x800, kind: 4, interface: 2, hardware: 1, network_at: 14 };
        let one = |code, k: i32| {
            let program = vec![Insn::stmt(code, k as u32), Insn::stmt(0x16, 0)];
            PacketFilter::new(program).map(|filter| filter.run(&[7; 40], &facts))
        };
        assert_eq!(one(0x20, -0x1000 + 4), Ok(4));
        assert_eq!(one(0x20, -0x1000 + 8), Ok(2));
        assert_eq!(one(0x30, -0x10_0000), Ok(7));
        assert_eq!(one(0x30, -0x10_0000 + 26), Ok(0));
        assert_eq!(one(0x20, -0x1000 + 64), Err(ProgramError::Operand { at: 0, k: -0x0fc0_i32 as u32 }));
        assert_eq!(one(0x38, 0), Err(ProgramError::Code { at: 0, code: 0x38 }));
        assert_eq!(one(0x94, 0), Err(ProgramError::Operand { at: 0, k: 0 }));
    }
}
