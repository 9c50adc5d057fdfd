// What a test may change while the server runs, and what it may read: the settings, the failures to come, the counts.

const SETTINGS = {
  mode: 'strict', // strict: rotation, reuse ends the family; google: one token for ever; microsoft: a new one, the old stays
  accessTokenLifetime: 3600, // seconds
  tokenLatencyMs: 0, // of every request for tokens, before it is dealt with
  defaultLogin: 'alice@gmail.test',
  grantScopes: null, // only these are granted at the next consents; openid always is
  denyNext: 0, // how many consents are refused
  denyDescription: '<b onmouseover=alert(1)>The user said no</b>',
  clientSecretExpired: false, // true, or a list of client ids
  idToken: {}, // claims laid over those of every ID token; null takes one away
  idTokenAudience: null,
  wrongNonce: false,
  idTokenBadSignature: false,
  callbackIss: 'right', // right, missing, or any other value as it stands
  issueRefreshToken: true, // false: consent gives none, whatever was asked
};
const FAILURE = new Set(['times', 'path', 'client', 'grantType', 'login', 'status', 'error', 'errorDescription', 'headers',
  'body', 'contentType', 'delayMs', 'delayAfterMs', 'dropAfter', 'dropBefore', 'hugeBytes', 'redirectTo', 'html']);

const nothing = () => ({ authorizations: 0, codeExchanges: 0, refusedCodes: 0, refreshes: 0, refusedRefreshes: 0,
  revocations: 0, inFlight: 0, maxConcurrent: 0 });

export class Control {
  constructor(initial) {
    this.initial = { ...structuredClone(SETTINGS), ...initial };
    this.forget();
  }

  forget() {
    this.settings = structuredClone(this.initial);
    this.failures = [];
    this.users = {};
    this.logins = new Map(); // by the subject under which the provider keeps them
    this.consented = new Set();
    this.total = nothing();
    this.byUser = new Map();
    this.byFamily = new Map();
    this.requests = {};
    this.injected = {};
  }

  change(words) {
    const { failNext, user, ...settings } = words;
    for (const name of Object.keys(settings)) if (!(name in SETTINGS)) throw new Error(`unknown setting ${name}`);
    for (const failure of [failNext ?? []].flat()) {
      for (const name of Object.keys(failure)) if (!FAILURE.has(name)) throw new Error(`unknown word of a failure: ${name}`);
      this.failures.push({ times: 1, path: 'token', ...failure });
    }
    for (const one of [user ?? []].flat()) this.users[one.login] = { ...this.users[one.login], ...one };
    Object.assign(this.settings, settings);
  }

  // The failure that is due for this request, taken off the list.
  due({ path, client, grantType, login }) {
    const found = this.failures.find((one) => one.times > 0 && one.path === path && (!one.client || one.client === client)
      && (!one.grantType || one.grantType === grantType) && (!one.login || one.login === login));
    if (found) {
      found.times -= 1;
      this.injected[path] = (this.injected[path] ?? 0) + 1;
    }
    return found;
  }

  user(login) {
    const digits = [...login].reduce((sum, letter) => (sum * 131n + BigInt(letter.codePointAt(0))) % 10n ** 20n, 7n);
    return { login, sub: `1${String(digits).padStart(20, '0')}`, email: login, emailVerified: true,
      name: login.split('@')[0], historyId: '1000', ...this.users[login] };
  }

  // Under which subject the provider keeps this user.
  subjectOf(login) {
    const { sub } = this.user(login);
    this.logins.set(sub, login);
    return sub;
  }

  #counts(login, family) {
    const at = (map, key) => map.get(key) ?? map.set(key, nothing()).get(key);
    return [this.total, ...(login ? [at(this.byUser, login)] : []), ...(family ? [at(this.byFamily, family)] : [])];
  }

  count(what, login, family) {
    for (const counts of this.#counts(login, family)) counts[what] += 1;
  }

  // A refresh has begun; call the answer when it has ended.
  began(login, family) {
    const all = this.#counts(login, family);
    for (const counts of all) counts.maxConcurrent = Math.max(counts.maxConcurrent, ++counts.inFlight);
    return () => { for (const counts of all) counts.inFlight -= 1; };
  }

  told() {
    return { settings: this.settings, failures: this.failures.filter((one) => one.times > 0), requests: this.requests,
      injected: this.injected, total: this.total, users: Object.fromEntries(this.byUser),
      families: Object.fromEntries(this.byFamily) };
  }
}
