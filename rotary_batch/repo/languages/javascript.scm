; Also the first half of TypeScript's query.  `ecmascript.py` reads names, kinds, bases and exports out of each match.
(function_declaration name: (_) @name) @definition.function
(generator_function_declaration name: (_) @name) @definition.function
(class_declaration name: (_) @name) @definition.class
(class_body (method_definition) @definition.method)

; Functions and classes that a variable holds are definitions everywhere, other values in the file's own variables.
(variable_declarator
  name: (identifier)
  value: [(arrow_function) (function_expression) (generator_function) (class)]) @definition.variable
(program [
  (lexical_declaration (variable_declarator) @definition.variable)
  (variable_declaration (variable_declarator) @definition.variable)
  (export_statement declaration: [
    (lexical_declaration (variable_declarator) @definition.variable)
    (variable_declaration (variable_declarator) @definition.variable)])])

; `each(function visit() {})`, `return function visit() {}`, `return { open() {} }`
(arguments [(function_expression name: (_) @name) (generator_function name: (_) @name)] @definition.function)
(return_statement [
  (function_expression name: (_) @name) (generator_function name: (_) @name) (class name: (_) @name)] @definition.function)
(return_statement (object) @definition.function)
(arrow_function body: (parenthesized_expression (object) @definition.function))

; `exports.x =`, `Foo.prototype.x =`, `app.x = function`
(assignment_expression left: [(identifier) (member_expression) (subscript_expression)]) @definition.variable
; `Object.assign(Foo.prototype, { … })`, `Object.defineProperty(foo, "x", { … })`
(program (expression_statement (call_expression arguments: (arguments (_) (_))) @definition.property))
; `export { a as b }`, `export default …`
(export_statement !declaration) @definition.export

(call_expression function: (identifier) @reference)
(call_expression function: (member_expression property: (property_identifier) @reference))
(new_expression constructor: (identifier) @reference)
(import_specifier name: (identifier) @import)
(import_clause (identifier) @import)
(namespace_import (identifier) @import)
