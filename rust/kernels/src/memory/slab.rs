//! Entries in one vector, linked by `u32` indexes; a freed slot is used again.

/// The index that stands for "none".
pub(super) const NIL: u32 = u32::MAX;

// One line of the processor's cache for each: a look-up reads the hash, the entry and the links together.
#[derive(Debug)]
#[repr(align(64))]
struct Node<E> {
    hash: u64,
    entry: Option<E>,
    /// Towards the head of the list that the slot is in.
    newer: u32,
    /// Towards its tail; in a free slot, the next free one.
    older: u32,
    /// Which insertion this was; never the same twice, also after a clear.
    version: u32,
}

/// The entries, each with its hash and its place in one [`List`].
#[derive(Debug)]
pub struct Slab<E> {
    nodes: Vec<Node<E>>,
    free: u32,
    len: usize,
    insertions: u32,
}

impl<E> Default for Slab<E> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: NIL, len: 0, insertions: 0 }
    }
}

impl<E> Slab<E> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn hash(&self, slot: u32) -> u64 {
        self.nodes[slot as usize].hash
    }

    pub(super) fn version(&self, slot: u32) -> Option<u32> {
        let node = self.nodes.get(slot as usize)?;
        node.entry.is_some().then_some(node.version)
    }

    pub(super) fn get(&self, slot: u32) -> &E {
        self.nodes[slot as usize].entry.as_ref().expect("a linked slot holds an entry")
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut E {
        self.nodes[slot as usize].entry.as_mut().expect("a linked slot holds an entry")
    }

    pub(super) fn insert(&mut self, hash: u64, entry: E) -> u32 {
        self.len += 1;
        self.insertions = self.insertions.wrapping_add(1);
        let version = self.insertions;
        if self.free == NIL {
            let slot = self.nodes.len() as u32;
            self.nodes.push(Node { hash, entry: Some(entry), newer: NIL, older: NIL, version });
            return slot;
        }
        let slot = self.free;
        let node = &mut self.nodes[slot as usize];
        self.free = node.older;
        node.hash = hash;
        node.version = version;
        node.entry = Some(entry);
        slot
    }

    /// Another entry begins in a slot, which stays where it is in its list.
    #[inline]
    pub(super) fn rename(&mut self, slot: u32, hash: u64) {
        self.insertions = self.insertions.wrapping_add(1);
        let node = &mut self.nodes[slot as usize];
        node.hash = hash;
        node.version = self.insertions;
    }

    /// Takes the entry out; the slot must be in no list any more.
    pub(super) fn remove(&mut self, slot: u32) -> E {
        let node = &mut self.nodes[slot as usize];
        let entry = node.entry.take().expect("a linked slot holds an entry");
        node.older = self.free;
        self.free = slot;
        self.len -= 1;
        entry
    }

    /// All entries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.nodes.iter().filter_map(|node| node.entry.as_ref())
    }

    /// All entries, leaving nothing.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = E> + use<E> {
        let insertions = self.insertions;
        let taken = std::mem::replace(self, Self { insertions, ..Self::default() });
        taken.nodes.into_iter().filter_map(|node| node.entry)
    }

    pub(super) fn newer(&self, slot: u32) -> u32 {
        self.nodes[slot as usize].newer
    }
}

/// A doubly linked list through the slab: new slots at the head, the oldest at the tail.
#[derive(Debug)]
pub struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NIL, tail: NIL }
    }
}

impl List {
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    pub(super) fn push<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        let node = &mut slab.nodes[slot as usize];
        node.newer = NIL;
        node.older = self.head;
        match self.head {
            NIL => self.tail = slot,
            head => slab.nodes[head as usize].newer = slot,
        }
        self.head = slot;
    }

    pub(super) fn remove<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        let Node { newer, older, .. } = slab.nodes[slot as usize];
        match newer {
            NIL => self.head = older,
            newer => slab.nodes[newer as usize].older = older,
        }
        match older {
            NIL => self.tail = newer,
            older => slab.nodes[older as usize].newer = newer,
        }
    }

    #[inline]
    pub(super) fn renew<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        if self.head != slot {
            self.remove(slab, slot);
            self.push(slab, slot);
        }
    }

    /// The slots from the tail to the head.
    pub(super) fn oldest_first<'a, E>(&self, slab: &'a Slab<E>) -> impl Iterator<Item = u32> + 'a {
        let mut slot = self.tail;
        std::iter::from_fn(move || {
            let here = slot;
            (here != NIL).then(|| {
                slot = slab.newer(here);
                here
            })
        })
    }
}
