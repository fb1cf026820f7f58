//! The pages of an instance's memory of which it has a copy of its own, because it has written to them.

/// Returns the size of a page in bytes.
pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Returns `true` if the system can tell which pages were written to.
pub(in crate::engine) fn is_supported() -> bool {
    system::is_supported()
}

/// Returns the places of the pages with a copy of their own, in bytes from the start of the memory. `None` if there are more than
/// `most`, or if the system cannot tell.
pub(super) fn written(memory: &[u8], most: usize) -> Option<Vec<usize>> {
    system::written(memory, most)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::ops::Range;
    use std::os::fd::AsRawFd;
    use std::sync::LazyLock;

    use super::page_size;

    /// The page map of this process. `None` unless the kernel can scan it: Linux 6.7 and later can.
    static PAGE_MAP: LazyLock<Option<File>> = LazyLock::new(|| {
        let file = File::open("/proc/self/pagemap").ok()?;
        // Trying it on nothing tells whether the kernel knows the request.
        scan(&file, 0..0, &mut [Run::default()], 1)?;
        Some(file)
    });

    pub(super) fn is_supported() -> bool {
        PAGE_MAP.is_some()
    }

    pub(super) fn written(memory: &[u8], most: usize) -> Option<Vec<usize>> {
        /// The most runs of pages side by side.
        const RUNS_MAX: usize = 256;
        keep_small(memory)?;
        let mut runs = [Run::default(); RUNS_MAX];
        let range = memory.as_ptr_range();
        let (first, end) = (range.start.addr() as u64, range.end.addr() as u64);
        let runs = scan(PAGE_MAP.as_ref()?, first..end, &mut runs, most)?;
        let places = runs.iter().flat_map(|run| (run.start - first..run.end - first).step_by(page_size()));
        Some(places.filter_map(|place| usize::try_from(place).ok()).collect())
    }

    /// Lets the kernel make no huge page of the memory's small ones. It could at any time: then the pages between them would be the
    /// instance's own as well, and a first write to them no longer be a fault. `None` if it does not let itself be told.
    fn keep_small(memory: &[u8]) -> Option<()> {
        #[expect(unsafe_code, reason = "no library has a safe form of this system call")]
        // SAFETY: the advice changes no byte.
        let told = unsafe { libc::madvise(memory.as_ptr().cast_mut().cast(), memory.len(), libc::MADV_NOHUGEPAGE) };
        // A kernel without huge pages does not know the advice.
        (told == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)).then_some(())
    }

    /// The argument of the request `PAGEMAP_SCAN`: the kernel's `struct pm_scan_arg`.
    #[repr(C)]
    struct Scan {
        size: u64,
        flags: u64,
        start: u64,
        end: u64,
        walk_end: u64,
        runs: u64,
        runs_len: u64,
        max_pages: u64,
        category_inverted: u64,
        category_mask: u64,
        category_anyof_mask: u64,
        return_mask: u64,
    }

    /// Pages side by side: the kernel's `struct page_region`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    pub(super) struct Run {
        start: u64,
        end: u64,
        categories: u64,
    }

    /// `_IOWR('f', 16, struct pm_scan_arg)`.
    const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;

    /// What the kernel knows of a page: it is one of the image or another file, in memory, swapped out, or the page of zeros.
    mod category {
        pub(super) const FILE: u64 = 1 << 2;
        pub(super) const PRESENT: u64 = 1 << 3;
        pub(super) const SWAPPED: u64 = 1 << 4;
        pub(super) const ZERO: u64 = 1 << 5;
    }

    /// Finds the pages that are neither shared with an image nor the page of zeros. `None` if there are too many, or if the kernel
    /// does not know the request.
    fn scan<'a>(map: &File, Range { start, end }: Range<u64>, runs: &'a mut [Run], most: usize) -> Option<&'a [Run]> {
        use category::{FILE, PRESENT, SWAPPED, ZERO};
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start,
            end,
            walk_end: 0,
            runs: runs.as_mut_ptr().expose_provenance() as u64,
            runs_len: runs.len() as u64,
            // One more, so that the walk reaches the end if there are as many as may be.
            max_pages: most as u64 + 1,
            category_inverted: FILE | ZERO,
            category_mask: FILE | ZERO,
            // Without those that were swapped out, a page would keep what an item has left there.
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: 0,
        };
        #[expect(unsafe_code, reason = "no library has a safe form of this system call")]
        // SAFETY: the kernel reads the argument, whose size is in it, writes to its fields, and at most `runs_len` runs to `runs`. It
        // changes no page without a flag.
        let found = unsafe { libc::ioctl(map.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
        let found = usize::try_from(found).ok()?;
        (scan.walk_end == end).then(|| runs.get(..found)).flatten()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn is_supported() -> bool {
        false
    }

    pub(super) fn written(_: &[u8], _: usize) -> Option<Vec<usize>> {
        None
    }
}
