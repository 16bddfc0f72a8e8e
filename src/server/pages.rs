//! The files of the dashboard's pages beside the ward and the bedside: trends, alarms, limits, devices, system.

use super::routes::Asset;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Each with its path and kind. uPlot (MIT) is as its maker packs it, with its licence beside it.
pub(super) const FILES: &[Asset] = &[
    Asset { path: "/alarms.js", kind: SCRIPT, body: include_str!("dashboard/alarms.js") },
    Asset { path: "/chart.js", kind: SCRIPT, body: include_str!("dashboard/chart.js") },
    Asset { path: "/devices.js", kind: SCRIPT, body: include_str!("dashboard/devices.js") },
    Asset { path: "/elements.js", kind: SCRIPT, body: include_str!("dashboard/elements.js") },
    Asset { path: "/limits.js", kind: SCRIPT, body: include_str!("dashboard/limits.js") },
    Asset { path: "/nibp.js", kind: SCRIPT, body: include_str!("dashboard/nibp.js") },
    Asset { path: "/pages.css", kind: STYLE, body: include_str!("dashboard/pages.css") },
    Asset { path: "/pages.js", kind: SCRIPT, body: include_str!("dashboard/pages.js") },
    Asset { path: "/rest.js", kind: SCRIPT, body: include_str!("dashboard/rest.js") },
    Asset { path: "/series.js", kind: SCRIPT, body: include_str!("dashboard/series.js") },
    Asset { path: "/system.js", kind: SCRIPT, body: include_str!("dashboard/system.js") },
    Asset { path: "/trends.js", kind: SCRIPT, body: include_str!("dashboard/trends.js") },
    Asset { path: "/vendor/uPlot.iife.min.js", kind: SCRIPT, body: include_str!("dashboard/vendor/uPlot.iife.min.js") },
    Asset { path: "/vendor/uPlot.min.css", kind: STYLE, body: include_str!("dashboard/vendor/uPlot.min.css") },
    Asset {
        path: "/vendor/uPlot.LICENSE.txt",
        kind: "text/plain; charset=utf-8",
        body: include_str!("dashboard/vendor/uPlot.LICENSE.txt"),
    },
];
