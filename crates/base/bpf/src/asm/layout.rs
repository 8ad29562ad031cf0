//! From items and labels to instructions: places, distances, and the widening of far jumps.
//!
//! Every branch starts as one instruction. A side that does not fit in 8 bits turns into a `ja`
//! right behind the branch; that pushes others apart, so this repeats until nothing changes. Sides
//! only ever widen, so it ends.

use super::{AsmError, Item, Label, Target, ja};
use crate::insn::Insn;

/// Which sides of a branch go through a `ja` of their own.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Wide {
    then: bool,
    otherwise: bool,
}

impl Wide {
    /// Instructions the item takes.
    fn size(self) -> usize {
        1 + usize::from(self.then) + usize::from(self.otherwise)
    }
}

/// The instructions for `items`.
pub(super) fn resolve(items: &[Item], labels: &[Option<usize>]) -> Result<Vec<Insn>, AsmError> {
    let mut wide = vec![Wide::default(); items.len()];
    loop {
        let layout = Layout::new(labels, &wide);
        let mut changed = false;
        for (at, item) in items.iter().enumerate() {
            let Item::Branch { then, otherwise, .. } = item else { continue };
            let now = wide.get(at).copied().unwrap_or_default();
            // From the branch itself; the `ja`s of this item are behind it and count.
            let far = |target| Ok::<_, AsmError>(layout.skip(at, 0, target)? > u8::MAX as usize);
            let next = Wide { then: now.then || far(*then)?, otherwise: now.otherwise || far(*otherwise)? };
            changed |= next != now;
            if let Some(slot) = wide.get_mut(at) {
                *slot = next;
            }
        }
        if !changed {
            break;
        }
    }
    let layout = Layout::new(labels, &wide);
    let mut out = Vec::new();
    for (at, (item, wide)) in items.iter().zip(&wide).enumerate() {
        layout.emit(at, item, *wide, &mut out)?;
    }
    Ok(out)
}

/// Where each item begins, for one choice of widths.
struct Layout<'a> {
    labels: &'a [Option<usize>],
    /// One more than there are items: the end counts.
    starts: Vec<usize>,
}

impl<'a> Layout<'a> {
    fn new(labels: &'a [Option<usize>], wide: &[Wide]) -> Self {
        let mut starts = vec![0];
        let mut at = 0;
        for item in wide {
            at += item.size();
            starts.push(at);
        }
        Self { labels, starts }
    }

    /// Instructions between the `inner`th instruction of item `at` and `target`.
    fn skip(&self, at: usize, inner: usize, target: Target) -> Result<usize, AsmError> {
        let item = match target {
            Target::Next => at + 1,
            Target::To(Label(label)) => {
                self.labels.get(label).copied().flatten().ok_or(AsmError::Unbound(at))?
            }
        };
        let place = |item: usize| self.starts.get(item).copied().ok_or(AsmError::Unbound(at));
        place(item)?.checked_sub(place(at)? + inner + 1).ok_or(AsmError::Backwards(at))
    }

    fn emit(&self, at: usize, item: &Item, wide: Wide, out: &mut Vec<Insn>) -> Result<(), AsmError> {
        // Distances are below the item count plus widenings, and `Program` refuses more than 4096.
        let far = |inner, target| self.skip(at, inner, target).map(|skip| ja(skip as u32));
        match *item {
            Item::Plain(insn) => out.push(insn),
            Item::Always(target) => out.push(far(0, target)?),
            Item::Branch { code, k, then, otherwise } => {
                let near = |target| self.skip(at, 0, target).map(|skip| skip as u8);
                let jt = if wide.then { 0 } else { near(then)? };
                let jf = if wide.otherwise { u8::from(wide.then) } else { near(otherwise)? };
                out.push(Insn::jump(code, k, jt, jf));
                if wide.then {
                    out.push(far(1, then)?);
                }
                if wide.otherwise {
                    out.push(far(1 + usize::from(wide.then), otherwise)?);
                }
            }
        }
        Ok(())
    }
}
