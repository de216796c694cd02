(module name: [(constant) (scope_resolution)] @name) @definition.module
(class name: [(constant) (scope_resolution)] @name) @definition.class
(method name: (_) @name) @definition.method
(singleton_method name: (_) @name) @definition.method
(assignment left: (constant) @name) @definition.constant
(call method: (identifier) @_attr arguments: (argument_list (simple_symbol) @name @definition.property)
  (#any-of? @_attr "attr_reader" "attr_writer" "attr_accessor"))
(call method: (identifier) @_alias arguments: (argument_list . (simple_symbol) @name @definition.method)
  (#eq? @_alias "alias_method"))
(call !receiver method: (identifier) @reference)
(call receiver: (_) method: (identifier) @reference)
(call receiver: (constant) @reference method: (identifier) @_new (#eq? @_new "new"))
(call receiver: (scope_resolution name: (constant) @reference) method: (identifier) @_new (#eq? @_new "new"))
(superclass (constant) @reference)
(call method: (identifier) @_require (#any-of? @_require "require" "require_relative")) @import.statement
