// Runs before the page's modules, in any browser that runs scripts at all: it keeps in mind what is asked for until
// they run, and says in a sentence why they do not. `data-page` of the document tells how far the page is.
(function () {
  var root = document.documentElement;
  /** How long the program may be on its way before that is said. */
  var LONG_MS = 10000;

  /** @param {string} name */
  function is(name) {
    return root.getAttribute('data-page') === name;
  }

  /** @param {string} id @param {string} text */
  function write(id, text) {
    var element = document.getElementById(id);
    if (element) element.textContent = text;
    return element;
  }

  /** @param {string} text */
  function fail(text) {
    if (!is('starting')) return;
    root.setAttribute('data-page', 'failed');
    function show() {
      write('status', '');
      write('retry', 'Load the page again');
      write('trouble-text', text);
      var trouble = document.getElementById('trouble');
      if (trouble) trouble.hidden = false;
    }
    if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', show);
    else show();
  }

  /** @param {Event} event */
  function ask(event) {
    event.preventDefault();
    // Where the page cannot draw, no part of it shall try.
    event.stopImmediatePropagation();
    root.setAttribute('data-asked', 'draw');
    if (is('starting')) write('status', 'One moment: the page is still starting, then it draws.');
    else /** @type {HTMLElement} */ (document.getElementById('asking')).scrollIntoView({ block: 'nearest' });
  }

  root.setAttribute('data-page', 'starting');

  document.addEventListener('click', function (event) {
    if (is('ready')) return;
    var id = /** @type {Element} */ (event.target).id;
    if (id === 'draw') ask(event);
    if (id === 'retry') location.reload();
  }, true);
  document.addEventListener('keydown', function (event) {
    var typing = /** @type {Element} */ (event.target).id === 'prompt';
    if (is('ready') || !typing || event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    ask(event);
  }, true);
  // Captured, because a script that did not load says so to nobody else.
  addEventListener('error', function (event) {
    var target = /** @type {Partial<HTMLScriptElement>} */ (event.target);
    if (target.tagName === 'SCRIPT') fail('A part of this page did not load, so it cannot draw. Check the connection and load the page again.');
    else if (event.message) fail('This page did not start (' + event.message + '). Use a current version of Chrome, Edge, Firefox or Safari.');
  }, true);
  setTimeout(function () {
    if (is('starting')) write('status', 'The page is still loading; the connection may be slow. If nothing comes, load it again.');
  }, LONG_MS);

  if (location.protocol === 'file:') {
    fail('Opened as a file, this page cannot draw: browsers run its parts only from a web server. In its repository, “./build.sh serve” is one.');
  } else if (self.origin === 'null') {
    fail('This page is shown inside a frame that keeps it from starting workers, so it cannot draw here. Open it in a tab of its own: ' + location.href);
  } else if (!('noModule' in HTMLScriptElement.prototype)) {
    fail('This browser is too old to draw. Use a current version of Chrome, Edge, Firefox or Safari.');
  }
})();
