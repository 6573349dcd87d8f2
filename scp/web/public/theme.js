// The remembered theme, set before the first paint. Not a module: those run too late and the page would flash.
try {
  const theme = localStorage.getItem("tapeline.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  if (localStorage.getItem("tapeline.palette") === "blind") document.documentElement.dataset.palette = "blind";
} catch {
  // storage is forbidden: the system's preference applies
}
