// The signs of TeX that replies use, as MathML elements: [element, text].

const GREEK =
  "alpha=α beta=β gamma=γ delta=δ epsilon=ε varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ " +
  "lambda=λ mu=μ nu=ν xi=ξ pi=π rho=ρ sigma=σ tau=τ upsilon=υ phi=φ varphi=φ chi=χ psi=ψ omega=ω " +
  "Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ Omega=Ω " +
  "infty=∞ partial=∂ nabla=∇ ell=ℓ hbar=ℏ emptyset=∅ varnothing=∅ Re=ℜ Im=ℑ aleph=ℵ degree=° angle=∠";
const OPERATORS =
  "cdot=⋅ times=× div=÷ pm=± mp=∓ ast=∗ star=⋆ circ=∘ bullet=• oplus=⊕ otimes=⊗ " +
  "leq=≤ le=≤ geq=≥ ge=≥ neq=≠ ne=≠ approx=≈ equiv=≡ sim=∼ simeq=≃ cong=≅ propto=∝ ll=≪ gg=≫ " +
  "to=→ rightarrow=→ leftarrow=← leftrightarrow=↔ Rightarrow=⇒ Leftarrow=⇐ Leftrightarrow=⇔ iff=⇔ " +
  "implies=⟹ mapsto=↦ longrightarrow=⟶ uparrow=↑ downarrow=↓ " +
  "in=∈ notin=∉ ni=∋ subset=⊂ subseteq=⊆ supset=⊃ supseteq=⊇ cup=∪ cap=∩ setminus=∖ " +
  "forall=∀ exists=∃ neg=¬ lnot=¬ land=∧ wedge=∧ lor=∨ vee=∨ perp=⊥ parallel=∥ mid=∣ therefore=∴ " +
  "sum=∑ prod=∏ int=∫ iint=∬ oint=∮ bigcup=⋃ bigcap=⋂ " +
  "ldots=… dots=… cdots=⋯ vdots=⋮ ddots=⋱ prime=′ langle=⟨ rangle=⟩ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ " +
  "lvert=| rvert=| vert=| Vert=‖ lVert=‖ rVert=‖ colon=: ";
const ESCAPED = "{ } % & # _ $ |";

const pairs = (tag, text) =>
  text
    .trim()
    .split(/\s+/)
    .map((pair) => {
      const [name, ...sign] = pair.split("=");
      return [name, [tag, sign.join("=")]];
    });

export const COMMANDS = Object.freeze({
  __proto__: null,
  ...Object.fromEntries(pairs("mi", GREEK)),
  ...Object.fromEntries(pairs("mo", OPERATORS)),
  ...Object.fromEntries(ESCAPED.split(" ").map((sign) => [sign, ["mo", sign === "|" ? "‖" : sign]])),
});

/** Names that are set upright. */
export const FUNCTIONS = new Set(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp lim max min sup inf arg det dim ker gcd Pr deg mod argmax argmin".split(
    " ",
  ),
);

/** What carries its limits below and above. */
export const LARGE = new Set(
  ["sum", "prod", "lim", "max", "min", "sup", "inf", "bigcup", "bigcap", "argmax", "argmin"].map(
    (name) => `\\${name}`,
  ),
);

export const SPACES = Object.freeze({
  __proto__: null,
  ",": "0.17em",
  ":": "0.22em",
  ";": "0.28em",
  " ": "0.33em",
  "!": "-0.17em",
  quad: "1em",
  qquad: "2em",
  limits: "0em",
  displaystyle: "0em",
});
