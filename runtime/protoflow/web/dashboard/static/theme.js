// Runs before anything is painted, so that a chosen theme does not flicker.
try {
  const chosen = localStorage.getItem("protoflow-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden: then the system's theme holds.
}
