//! The other side of smoltcp's interface: one IP packet in, and those out that follow from it.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::IpProtocol;

use crate::config::Nic;
use crate::packet::{ETHERNET, HEADROOM, Outgoing, leave_checksum, view};
use crate::vnet::VnetHeader;

/// Largest packet of IPv4: what is left for the device to cut is no larger.
const LARGEST: usize = 65_535;

/// What smoltcp is told of an interface: checksums of TCP are the device's on the way out, and looked at by us
/// on the way in.
pub(crate) fn capabilities(nic: &Nic) -> DeviceCapabilities {
    let mut all = DeviceCapabilities::default();
    all.medium = Medium::Ip;
    all.max_transmission_unit = (nic.mtu as usize).clamp(576, LARGEST);
    all.checksum.tcp = smoltcp::phy::Checksum::None;
    all.checksum.udp = smoltcp::phy::Checksum::None;
    // Of IPv6 smoltcp drops what is longer than a packet instead of leaving it to the device.
    all.segmentation.tcpv4 = std::num::NonZeroUsize::new(LARGEST).filter(|_| nic.segments);
    all
}

/// A device that holds a packet, and takes others.
pub(crate) struct Port<'a> {
    pub(crate) packet: Option<&'a [u8]>,
    pub(crate) out: &'a mut Vec<Outgoing>,
    pub(crate) capabilities: &'a DeviceCapabilities,
}

/// A packet to be read.
pub(crate) struct Incoming<'a>(&'a [u8]);

/// Room for one.
pub(crate) struct Slot<'a> {
    out: &'a mut Vec<Outgoing>,
    meta: PacketMeta,
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Slot<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Slot<'_>)> {
        let packet = self.packet.take()?;
        Some((Incoming(packet), Slot { out: self.out, meta: PacketMeta::default() }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Slot<'_>> {
        Some(Slot { out: self.out, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; HEADROOM + len];
        let result = f(bytes.get_mut(HEADROOM..).unwrap_or_default());
        let mut out = Outgoing { bytes, vnet: VnetHeader::default() };
        let heads = view(out.packet()).filter(|view| view.protocol == IpProtocol::Tcp).map(|view| {
            let tcp = view.payload.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
            ETHERNET + view.whole.len() - view.payload.len() + tcp
        });
        if let Some(heads) = heads {
            leave_checksum(&mut out);
            if let Some(segment) = self.meta.segmentation_offload_size {
                out.vnet = out.vnet.cut(heads as u16, segment.get());
            }
        }
        self.out.push(out);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}
